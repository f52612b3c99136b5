# cocoer on an NVIDIA GPU: docker build -f docker/cuda.Dockerfile -t cocoer:cuda .
# docker run --rm --gpus all --ipc=host -v "$PWD:/work" cocoer:cuda doctor
# The driver comes from the host (NVIDIA Container Toolkit); CUDA's libraries come with torch's wheels.
FROM python:3.11-slim

# What OpenCV, which insightface brings, opens at run time; whichever version the image's Debian has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

COPY . /src
# Detection uses the GPU with onnxruntime-gpu, which stands in for onnxruntime: both write into one folder.
RUN pip install --no-cache-dir "/src[onnx,explain]" \
    && pip uninstall -y onnxruntime \
    && pip install --no-cache-dir "onnxruntime-gpu>=1.21" \
    && rm -rf /src

# Weights that are fetched stay in a volume; results go to the folder that is mounted at /work.
RUN useradd --create-home --uid 1000 cocoer && mkdir -p /data /work && chown cocoer /data /work
USER 1000
ENV COCOER_HOME=/data
VOLUME /data
WORKDIR /work
ENTRYPOINT ["cocoer"]
CMD ["--help"]
