# cocoer on a CPU: docker build -f docker/cpu.Dockerfile -t cocoer . && docker run --rm -v "$PWD:/work" cocoer predict photo.jpg
FROM python:3.11-slim

# What OpenCV, which insightface brings, opens at run time; whichever version the image's Debian has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# torch's wheels for CPUs are on an index of their own; the ones on PyPI bring 4 GB of CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.11" "torchvision>=0.26"

COPY . /src
RUN pip install --no-cache-dir "/src[onnx,explain]" && rm -rf /src

# Weights that are fetched stay in a volume; results go to the folder that is mounted at /work.
RUN useradd --create-home --uid 1000 cocoer && mkdir -p /data /work && chown cocoer /data /work
USER 1000
ENV COCOER_HOME=/data
VOLUME /data
WORKDIR /work
ENTRYPOINT ["cocoer"]
CMD ["--help"]
