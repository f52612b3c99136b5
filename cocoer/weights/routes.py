"""Routes to photographs: what each needs, what is missing, and which one `cocoer setup photos` chose.

A route is a recogniser (`release`: the authors' checkpoint; `zero-shot`: CLIP alone) with detectors (`insightface`, for research
only; `permissive`, also for commercial use). Imports nothing heavy.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cocoer.errors import CheckpointError, UsageError
from cocoer.files import read_json, write_text
from cocoer.weights import places
from cocoer.weights.catalog import DEMO_CHECKPOINT, WeightsFile, entry

RECOGNISERS: dict[str, tuple[str, ...]] = {"release": ("cocoer-release", "clip-rn50"), "zero-shot": ("clip-rn50",)}
"""Catalog entries that a recogniser is made of."""

DETECTOR_FILES: dict[str, tuple[str, ...]] = {
    "insightface": ("buffalo_l", "scrfd_person_2.5g"),
    "permissive": ("yunet", "coco-persons"),
}
SETUP = "cocoer setup photos"
_CHOICE = "checkpoints/photographs.json"
RELEASE_FOLDER = "checkpoints/release"


@dataclass(frozen=True)
class Route:
    """checkpoint: `release` or `zero-shot`. detector: `insightface` or `permissive`."""

    checkpoint: str
    detector: str

    @property
    def name(self) -> str:
        """In words, as `--with` takes them."""
        return self.checkpoint if self.detector == "insightface" else f"{self.checkpoint} permissive"

    @property
    def items(self) -> tuple[WeightsFile, ...]:
        """The catalog's entries that it is made of."""
        return tuple(entry(name) for name in (*RECOGNISERS[self.checkpoint], *DETECTOR_FILES[self.detector]))

    @property
    def missing(self) -> tuple[str, ...]:
        """The missing parts, in words; empty if the route is ready."""
        lacking = [item.name for item in self.items if not item.present]
        if self.checkpoint == "release":
            if release_file() is not None:  # converted: neither source is read any more
                return tuple(name for name in lacking if name not in RECOGNISERS["release"])
            if not lacking:
                return ("the conversion of GWT.pth",)
        return tuple(lacking)


ROUTES = tuple(Route(checkpoint, detector) for detector in DETECTOR_FILES for checkpoint in RECOGNISERS)


def route_of(words: tuple[str, ...]) -> Route:
    """The route that `--with` names. `permissive` alone goes with `zero-shot`, the recogniser without a research-only part.

    Raises UsageError for two recognisers.
    """
    recognisers = [word for word in words if word in RECOGNISERS]
    if len(recognisers) > 1:
        raise UsageError(f"--with: wanted one of {' and '.join(RECOGNISERS)} (and permissive, if you like), got both")
    permissive = "permissive" in words
    default = "zero-shot" if permissive else "release"
    return Route(recognisers[0] if recognisers else default, "permissive" if permissive else "insightface")


def release_file() -> Path | None:
    """The converted release, or None."""
    found = places.find(f"{RELEASE_FOLDER}/model.safetensors")
    return found if found is not None and found.is_file() else None


def choose(route: Route) -> None:
    """Make a route the default for photographs. Raises OutputError."""
    write_text(places.home() / _CHOICE, json.dumps(asdict(route)) + "\n")


def chosen() -> Route | None:
    """The route that setup chose, if it (still) has everything that it needs."""
    path = places.find(_CHOICE)
    try:
        said = read_json(path) if path else {}
        route = Route(str(said["checkpoint"]), str(said["detector"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return route if route in ROUTES and not route.missing else None


def named_checkpoint(name: str | Path | None) -> str | Path:
    """What `--checkpoint` means: a file or folder, `demo`, `release`, `zero-shot...`; None: the chosen route's, else `demo`.

    Raises CheckpointError for `release` where it has not been set up.
    """
    if name is None:
        route = chosen()
        name = route.checkpoint if route else "demo"
    if name == "demo" and not Path("demo").exists():
        return DEMO_CHECKPOINT
    if name == "release" and not Path("release").exists():
        file = release_file()
        if file is None:
            raise CheckpointError(f"the authors' checkpoint is not set up; run `{SETUP} --with release`")
        return file
    return name


def detector_for(name: str | Path | None) -> str | None:
    """The detectors (a key of `catalog.DETECTORS`) that go with a checkpoint whose own config need not know them, or None.

    name: as `named_checkpoint` takes it. The chosen route's, else those that are there.
    """
    route = chosen()
    if name is None:
        return route.detector if route else None
    if str(name) == "zero-shot:demo" or str(name).partition(":")[0] not in RECOGNISERS:
        return None
    there = [kind for kind, files in DETECTOR_FILES.items() if all(entry(file).present for file in files)]
    preferred = route.detector if route else "insightface"
    return preferred if preferred in there or not there else there[0]
