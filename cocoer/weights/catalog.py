"""Every file that cocoer can use and does not make itself: where it comes from, its size, checksum, licence and place.

A size or checksum that its publisher does not state, or that could not be found, is None; nothing is guessed. `cocoer weights`
lists, fetches and verifies these files. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cocoer.errors import ConfigError, MissingWeights, UsageError
from cocoer.names import nearest
from cocoer.weights import places

DEMO_CHECKPOINT = places.SHIPPED / "checkpoints" / "demo" / "demo_emotic.safetensors"
DEMO_FACE = places.SHIPPED / "checkpoints" / "demo" / "face.onnx"
DEMO_PERSON = places.SHIPPED / "checkpoints" / "demo" / "person.onnx"

DETECTORS: dict[str, tuple[str, ...]] = {
    "demo": (
        f"inference.detector.face={json.dumps(str(DEMO_FACE))}",
        f"inference.detector.person={json.dumps(str(DEMO_PERSON))}",
        "inference.detector.input_size=256",
        "inference.detector.demo_anywhere=true",
    ),
    "insightface": (
        "inference.detector.face=buffalo_l",
        "inference.detector.person=scrfd_person_2.5g",
        "inference.detector.input_size=640",
    ),
    "permissive": ("inference.detector.face=yunet", "inference.detector.person=coco-persons"),
}
"""`--detector NAME` -> what it sets in the config."""


def detector_settings(name: str) -> tuple[str, ...]:
    """What a name of `DETECTORS` sets in the config. Raises ConfigError with the nearest name for another one."""
    if name in DETECTORS:
        return DETECTORS[name]
    near = nearest(name, DETECTORS)
    hint = f", did you mean {near!r}?" if near else "."
    raise ConfigError(f"no detectors called {name!r}{hint} Wanted one of {', '.join(DETECTORS)}")


PERMISSIVE = "thirdparty/permissive"
INSIGHTFACE = "thirdparty/insightface/models"

NON_COMMERCIAL = "non-commercial research only (insightface's licence for its models)"
TORCHVISION = "BSD-3-Clause code; trained on ImageNet, whose terms are non-commercial research"
OPENAI = "MIT; OpenAI's model card advises against deployed use without a study of the use"


@dataclass(frozen=True)
class WeightsFile:
    """One file to fetch.

    url: where the publisher serves it, or None where only `page` is known (fetched by hand, then `--from FILE`).
    size: bytes; about: where no size is stated, roughly how many. sha256: hexadecimal, whole or only as many leading digits as
    the publisher states. Both of the file at url.
    place: where it goes, below one of `places.roots`. unpack: members of an archive to put into `place` (a folder), with the
    SHA-256 that is known of each; `unpack` is found by file name in any folder of a zip, tar or 7z. optional: further members,
    which may be missing. bare: what comes may also be the first member itself, not in an archive.
    """

    name: str
    what: str
    page: str
    place: str
    licence: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    sha256_source: str = "not published"
    unpack: tuple[tuple[str, str | None], ...] = ()
    optional: tuple[str, ...] = ()
    bare: bool = False
    about: int | None = None

    @property
    def file_name(self) -> str:
        """What the publisher calls the download; a mirror keeps it under this name."""
        plain = self.url is not None and "?" not in self.url
        return (
            str(self.url).rsplit("/", 1)[1] if plain else f"{self.name}.zip" if self.unpack else Path(self.place).name
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The absolute paths at which it lies, or will once it is in place (`places.home`)."""
        names = [f"{self.place}/{member}" for member, _ in self.unpack] or [self.place]
        return tuple(_lying(names) or (places.home() / name for name in names))

    @property
    def present(self) -> bool:
        """Whether all of its files are there."""
        return all(path.is_file() for path in self.files)


def _lying(names: Sequence[str]) -> list[Path]:
    """The files of these names in the first of `places.roots` that has them all; empty where none has."""
    for root in places.roots():
        if all((root / name).is_file() for name in names):
            return [root / name for name in names]
    return []


def _imagenet(name: str, file: str, size: int | None = None, sha256: str | None = None) -> WeightsFile:
    """A torchvision classifier; its file name ends in the first 8 digits of its SHA-256."""
    return WeightsFile(
        name=name,
        what=f"ImageNet weights of the backbones ({name})",
        page="https://pytorch.org/vision/stable/models.html",
        place=f"checkpoints/imagenet/{name}.pth",
        licence=TORCHVISION,
        url=f"https://download.pytorch.org/models/{file}",
        size=size,
        sha256=sha256 or file.removesuffix(".pth").rsplit("-", 1)[1],
        sha256_source="first 8 digits in the file name" + ("; whole sum as others measured it" if sha256 else ""),
    )


def _clip(tower: str, sha256: str) -> WeightsFile:
    """An OpenAI CLIP model; its address holds its SHA-256."""
    file = tower.replace("/", "-")
    return WeightsFile(
        name=f"clip-{file.lower()}",
        what=f"CLIP {tower}, the vocabulary-informed branch",
        page="https://github.com/openai/CLIP",
        place=f"checkpoints/clip/{tower}.pt",
        licence=OPENAI,
        url=f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file}.pt",
        about=256_000_000 if tower == "RN50" else None,
        sha256=sha256,
        sha256_source="in the address",
    )


CATALOG: tuple[WeightsFile, ...] = (
    _imagenet(
        "resnet50",
        "resnet50-0676ba61.pth",
        102_530_333,
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    _imagenet("resnet18", "resnet18-f37072fd.pth"),
    _imagenet("resnet101", "resnet101-63fe2227.pth"),
    _imagenet("resnet152", "resnet152-394f9c45.pth"),
    _imagenet("mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth"),
    _imagenet("vgg16", "vgg16-397923af.pth"),
    _imagenet("densenet161", "densenet161-8d451a50.pth"),
    _clip("RN50", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    _clip("RN50x16", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    _clip("RN50x64", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
    _clip("ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    _clip("ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    _clip("ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    WeightsFile(
        name="buffalo_l",
        what="insightface face pack; cocoer uses its face detector det_10g.onnx (SCRFD-10G with key points)",
        page="https://github.com/deepinsight/insightface/releases/tag/model-zoo",
        place=f"{INSIGHTFACE}/buffalo_l",
        licence=NON_COMMERCIAL,
        url="https://github.com/deepinsight/insightface/releases/download/model-zoo/buffalo_l.zip",
        size=288_621_354,
        sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        sha256_source="the release page",
        unpack=(("det_10g.onnx", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"),),
    ),
    WeightsFile(
        name="scrfd_person_2.5g",
        what="insightface person detector (SCRFD-2.5G)",
        page="https://github.com/deepinsight/insightface/releases/tag/model-zoo",
        place=f"{INSIGHTFACE}/scrfd_person_2.5g.onnx",
        licence=NON_COMMERCIAL,
        url="https://github.com/deepinsight/insightface/releases/download/model-zoo/scrfd_person_2.5g.onnx",
        about=3_700_000,
    ),
    WeightsFile(
        name="cocoer-release",
        what="the authors' CocoER checkpoint for EMOTIC (GWT.pth), and V-I's alignment (w.pth), which only training needs",
        page="https://github.com/bisno/CocoER",
        place="checkpoints",
        licence="MIT (the authors' repository); trained on EMOTIC, whose terms are non-commercial research",
        about=1_410_000_000,  # its 352 million parameters in float32
        url="https://drive.google.com/uc?id=1JXXt22_M8UB-LXmCz-W90U6WQEtu1uck",
        unpack=(("GWT.pth", None),),
        optional=("VI_weights/w.pth",),
        bare=True,
    ),
    WeightsFile(
        name="cocoer-release-detectors",
        what="the authors' copy of both insightface detectors, where insightface's own page cannot be reached",
        page="https://github.com/bisno/CocoER",
        place=INSIGHTFACE,
        licence=NON_COMMERCIAL,
        url="https://drive.google.com/uc?id=15vdafPSWhep4PJAAYSdSPPgDoCgp2dxO",
        unpack=(
            ("buffalo_l/det_10g.onnx", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"),
            ("scrfd_person_2.5g.onnx", None),
        ),
    ),
    WeightsFile(
        name="yunet",
        what="YuNet, a face detector that OpenCV runs (version of March 2023)",
        page="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        place=f"{PERMISSIVE}/face_detection_yunet_2023mar.onnx",
        licence="MIT (OpenCV Zoo)",
        url="https://huggingface.co/opencv/face_detection_yunet/resolve/main/face_detection_yunet_2023mar.onnx",
        size=232_589,
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        sha256_source="as others measured it",
    ),
    WeightsFile(
        name="coco-persons",
        what="torchvision's Faster R-CNN (MobileNetV3-Large FPN) trained on COCO; cocoer uses its class person",
        page="https://pytorch.org/vision/stable/models.html",
        place=f"{PERMISSIVE}/fasterrcnn_mobilenet_v3_large_fpn.pth",
        licence="BSD-3-Clause code and weights; COCO's annotations are CC BY 4.0, its images are Flickr's with their own terms",
        url="https://download.pytorch.org/models/fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
        about=77_800_000,  # torchvision states 74.239 MiB
        sha256="fb6a3cc7",
        sha256_source="first 8 digits in the file name",
    ),
)


def entry(name: str) -> WeightsFile:
    """The catalog's entry of a name. Raises UsageError with the nearest name and all names for one it does not hold."""
    by_name = {item.name: item for item in CATALOG}
    if name in by_name:
        return by_name[name]
    hint = nearest(name, by_name)
    raise UsageError(
        f"no weights called {name!r}" + (f", did you mean {hint!r}?" if hint else "") + f" Known: {', '.join(by_name)}"
    )


def find_detector(name: str, kind: str) -> Path:
    """The .onnx file of a detector that a config names.

    name: the path of an .onnx file, the name of a pack (its folder's SCRFD file is taken) or of a file, in
    `thirdparty/insightface/models` or in `~/.insightface/models`, where insightface itself keeps them. kind: `face` or `person`.
    Raises MissingWeights that names file, place and command.
    """
    listed = next((item for item in CATALOG if item.name == name and item.place.startswith(PERMISSIVE)), None)
    if listed is not None and listed.present:
        return listed.files[0]
    if name.endswith((".onnx", ".pth")):
        path = places.find(name)
        if path is not None and path.is_file():
            return Path(os.path.abspath(path))  # a link to a file without the ending (a Hub cache) stays a name with it
        raise MissingWeights(
            f"{kind} detector {name}: no such file; set inference.detector.{kind} to the path of an .onnx file, or give boxes "
            "with --boxes"
        )
    roots = [*(root / INSIGHTFACE for root in places.roots()), places.user_home() / ".insightface" / "models"]
    for root in roots:
        if (root / f"{name}.onnx").is_file():
            return root / f"{name}.onnx"
        inside = sorted((root / name).glob("det_*.onnx")) + sorted((root / name).glob("*scrfd*.onnx"))
        if inside:
            return inside[0]
    known = any(item.name == name for item in CATALOG)
    remedy = f"run `cocoer setup photos`, or `cocoer weights fetch {name}`" if known else "see `cocoer weights list`"
    wanted = listed.files[0] if listed else f"{roots[0] / name}{'.onnx' if 'person' in name else '/'}"
    raise MissingWeights(
        f"{kind} detector {name!r} is not there: wanted {wanted}; {remedy}, or give boxes with --boxes"
    )
