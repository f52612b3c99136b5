"""What is installed, what is wrong with it, and what to do: `cocoer doctor`.

Looks at Python, packages and their bounds, torch and its GPU, the two onnxruntime packages that must not both be there,
weights with their licences, the routes to photographs, disk and folders.
Changes nothing and uses no network. Exit code 0: nothing wrong. 1: something is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cocoer.cli.options import command_parser
from cocoer.data.detect import NO_WINDOWS
from cocoer.errors import first_line
from cocoer.report.text import human_size
from cocoer.weights import places
from cocoer.weights.catalog import CATALOG, DEMO_CHECKPOINT, DEMO_FACE, DEMO_PERSON
from cocoer.weights.routes import ROUTES, SETUP, chosen

OK, NOTE, WRONG = "ok", "note", "WRONG"
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
LEAST_DISK = 2_000_000_000
CONFIGS = places.SHIPPED / "configs"

VersionOf = Callable[[str], "str | None"]
"""Distribution name -> installed version, or None."""


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: ok, note (works, but read it) or WRONG. remedy: what to type or do, if anything."""

    state: str
    what: str
    remedy: str = ""


def installed(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_python() -> list[Finding]:
    """Python itself and where it runs."""
    said = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    in_venv = sys.prefix != sys.base_prefix
    return [Finding(OK, said + ("" if in_venv else " (not in a virtual environment)"))]


def requirements() -> list[str]:
    """The requirements of cocoer, one per line: of the clone's pyproject.toml, or of the installed package."""
    if places.CLONE is not None:
        project = tomllib.loads((places.CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return list(project["dependencies"])
    return [line for line in metadata.requires("cocoer") or () if "extra ==" not in line]


def check_packages(lines: Sequence[str], version_of: VersionOf = installed) -> list[Finding]:
    """Every required package against what is installed; onnxruntime-gpu may stand in for onnxruntime."""
    from packaging.requirements import Requirement

    found, good = [], []
    for line in lines:
        wanted = Requirement(line)
        version = version_of(wanted.name)
        if version is None and wanted.name == "onnxruntime":
            version = version_of("onnxruntime-gpu")
        if version is None:
            said = f"{wanted.name} is not installed, wanted {wanted.specifier}"
            found.append(Finding(WRONG, said, places.installs(line)))
        elif not wanted.specifier.contains(version, prereleases=True):
            said = f"{wanted.name} {version} is installed, wanted {wanted.specifier}"
            found.append(Finding(WRONG, said, places.installs(line)))
        else:
            good.append(f"{wanted.name} {version}")
    return [Finding(OK, ", ".join(good)), *found]


def check_runtimes(
    version_of: VersionOf, providers: Sequence[str], gpu_seen: bool, runtime_cuda: str | None, torch_cuda: str | None
) -> list[Finding]:
    """Exactly one onnxruntime, and the right one for this machine.

    providers: what the imported onnxruntime offers. gpu_seen: whether torch sees one. *_cuda: CUDA versions they are built for.
    """
    cpu, gpu = version_of("onnxruntime"), version_of("onnxruntime-gpu")
    swap = places.installs_gpu_runtime()
    if cpu and gpu:
        both = f"onnxruntime {cpu} and onnxruntime-gpu {gpu} are both installed; they overwrite each other's files"
        return [
            Finding(
                WRONG,
                both,
                swap if gpu_seen else "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime",
            )
        ]
    if not cpu and not gpu:
        said = "no onnxruntime is installed; detectors cannot run"
        return [Finding(WRONG, said, swap if gpu_seen else places.installs("onnxruntime"))]
    has_cuda = "CUDAExecutionProvider" in providers
    said = f"{'onnxruntime-gpu ' + str(gpu) if gpu else 'onnxruntime ' + str(cpu)} with {', '.join(providers) or 'no providers'}"
    if gpu and not has_cuda:
        return [Finding(WRONG, f"{said}: installed for a GPU but without CUDA", swap)]
    if gpu and runtime_cuda and torch_cuda and runtime_cuda.split(".")[0] != torch_cuda.split(".")[0]:
        clash = f"{said}: built for CUDA {runtime_cuda}, torch for CUDA {torch_cuda}; one of them will run on the CPU"
        return [Finding(WRONG, clash, "install the onnxruntime-gpu that is built for torch's CUDA: see onnxruntime.ai")]
    if gpu_seen and not has_cuda:
        return [Finding(NOTE, f"{said}: torch sees a GPU, but detectors will run on the CPU", swap)]
    return [Finding(OK, said)]


def check_torch() -> tuple[list[Finding], bool, str | None]:
    """torch, its CUDA and GPUs. Returns findings, whether a GPU is seen, and the CUDA version torch is built for."""
    try:
        import torch
    except (ImportError, OSError) as err:
        return [Finding(WRONG, f"torch cannot be imported: {first_line(err)}", places.installs("torch"))], False, None
    cuda = torch.version.cuda
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return [Finding(OK, f"torch {torch.__version__} sees {names} (CUDA {cuda})")], True, cuda
    if shutil.which("nvidia-smi"):
        said = f"torch {torch.__version__} (CUDA {cuda or 'none'}) sees no GPU, though nvidia-smi is installed"
        return [Finding(NOTE, said, "run nvidia-smi; the usual reason is a driver too old for this CUDA")], False, cuda
    return [Finding(OK, f"torch {torch.__version__} on the CPU, {torch.get_num_threads()} threads")], False, cuda


def check_opencv(version_of: VersionOf = installed) -> list[Finding]:
    """At most one OpenCV package, for they share one folder."""
    there = [f"{name} {version_of(name)}" for name in OPENCV if version_of(name)]
    if len(there) > 1:
        return [
            Finding(
                NOTE,
                f"several OpenCV packages: {', '.join(there)}",
                f"keep one: pip uninstall -y {' '.join(OPENCV[1:])}",
            )
        ]
    return (
        [Finding(OK, there[0])] if there else [Finding(WRONG, "no OpenCV is installed", places.installs("insightface"))]
    )


def check_insightface() -> list[Finding]:
    """Whether insightface can be imported at all."""
    try:
        import insightface
    except ImportError as err:
        remedy = places.installs("insightface") if isinstance(err, ModuleNotFoundError) else NO_WINDOWS
        return [Finding(WRONG, f"insightface cannot be imported: {first_line(err)}", remedy)]
    return [Finding(OK, f"insightface {insightface.__version__}")]


def check_weights() -> list[Finding]:
    """The demonstration's files, and each of the catalog with its licence."""
    found = []
    restore = "git checkout -- {}" if places.CLONE else "pip install --force-reinstall --no-deps cocoer"
    for path in (DEMO_CHECKPOINT, DEMO_FACE, DEMO_PERSON):
        name = places.shown(path)
        if path.is_file():
            found.append(Finding(OK, f"{name}, {human_size(path.stat().st_size)} (synthetic demonstration, MIT)"))
        else:
            found.append(Finding(WRONG, f"{name} is not there, though it comes with cocoer", restore.format(name)))
    for item in CATALOG:
        if item.present:
            size = human_size(sum(path.stat().st_size for path in item.files))
            found.append(Finding(OK, f"{item.name}, {size}; licence: {item.licence}"))
    absent = [item.name for item in CATALOG if not item.present]
    if absent:
        found.append(Finding(NOTE, f"not here: {', '.join(absent)}", "if you need one: cocoer weights fetch NAME"))
    return found


def check_photographs() -> list[Finding]:
    """The routes to photographs that are ready, and what the others lack; WRONG if none is ready."""
    ready = [route for route in ROUTES if not route.missing]
    default = chosen()
    found = [Finding(OK, f"ready: {route.name}{' (the default)' if route == default else ''}") for route in ready]
    if not ready:
        found.append(Finding(WRONG, "not ready for photographs: no route is complete", SETUP))
    elif default is None:
        route = ready[0]
        said = f"no route is chosen for photographs yet; until then name one, such as --checkpoint {route.checkpoint}"
        found.append(Finding(NOTE, said, f"{SETUP} --with {route.name}"))
    return found + [
        Finding(NOTE, f"not ready: {route.name}, lacks {', '.join(route.missing)}", f"{SETUP} --with {route.name}")
        for route in ROUTES
        if route.missing
    ]


def check_disk(folder: Path) -> list[Finding]:
    """Room, and whether results can be written."""
    there = places.nearest_existing(folder)
    free = shutil.disk_usage(there).free
    found = [
        Finding(OK, f"{human_size(free)} free")
        if free >= LEAST_DISK
        else Finding(NOTE, f"only {human_size(free)} free", "free some disk space for weights and results")
    ]
    writable = os.access(there, os.W_OK)
    state = (
        Finding(OK, f"{folder} can be written")
        if writable
        else Finding(WRONG, f"{folder} cannot be written", "use --output")
    )
    return [*found, state]


def _runtime() -> tuple[list[str], str | None]:
    """Providers of the onnxruntime that imports, and the CUDA it is built for."""
    try:
        import onnxruntime
    except ImportError:
        return [], None
    built: Any = None
    try:
        from onnxruntime.capi import build_and_package_info

        built = getattr(build_and_package_info, "cuda_version", None)
    except ImportError:
        pass
    return list(onnxruntime.get_available_providers()), str(built) if built else None


def examine() -> dict[str, list[Finding]]:
    """Every check, by subject."""
    torch_found, gpu_seen, torch_cuda = check_torch()
    providers, runtime_cuda = _runtime()
    return {
        "Python": check_python(),
        "Packages": check_packages(requirements()),
        "torch": torch_found,
        "onnxruntime": check_runtimes(installed, providers, gpu_seen, runtime_cuda, torch_cuda),
        "insightface": check_insightface(),
        "OpenCV": check_opencv(),
        "Weights": check_weights(),
        "Photographs": check_photographs(),
        "Disk": check_disk(places.home()),
    }


def check_gpu(args: argparse.Namespace) -> int:
    """The checks of `benchmark.gpu_check` on the first GPU, as one table. 0: all passed; 1: one failed; 2: no GPU here."""
    import torch

    from cocoer.benchmark.gpu_check import CHECKS, Bench, run_checks
    from cocoer.config import load_config
    from cocoer.report.text import table

    if not torch.cuda.is_available():
        print("cocoer doctor --gpu: torch sees no GPU, so nothing was checked. On a machine with CUDA it would run:")
        for name, check in CHECKS.items():
            print(f"  {name:18} {(check.__doc__ or '').splitlines()[0]}")
        return 2
    configs = {"paper": load_config(CONFIGS / "emotic.yaml"), "release": load_config(CONFIGS / "emotic_release.yaml")}
    bench = Bench(torch.device("cuda", 0), configs, compiled=not args.no_compile, processes=torch.cuda.device_count())
    lines = []
    for line in run_checks(bench, args.minutes):
        lines.append(line)
        print(f"{line.state:4}  {line.check}  {line.measured}", file=sys.stderr, flush=True)
    failed = sum(line.state == "FAIL" for line in lines)
    if args.json:
        about = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, "cuda": torch.version.cuda}
        print(json.dumps(about | {"failed": failed, "lines": [line.to_dict() for line in lines]}, indent=2))
        return 1 if failed else 0
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    header = ["", "check", "measured", "wanted", "ms", "persons/s", "/ bare networks"]
    rows = [
        [n.state, n.check, n.measured, n.wanted, n.ms, n.persons_per_s and round(n.persons_per_s), n.floor_share]
        for n in lines
    ]
    print(table(header, rows, digits=2))
    print(f"\n{len(lines)} lines, {failed} failed")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    p = command_parser("doctor", __doc__)
    p.add_argument("--json", action="store_true", help="print the findings as JSON")
    p.add_argument(
        "--gpu",
        action="store_true",
        help="check this machine's GPU instead: the CPU's answers, training, speed, memory",
    )
    p.add_argument(
        "--minutes", type=float, default=10.0, help="with --gpu: checks that do not fit are skipped (default: 10)"
    )
    p.add_argument("--no-compile", action="store_true", help="with --gpu: skip torch.compile, which takes minutes")
    args = p.parse_args(argv)
    if args.gpu:
        return check_gpu(args)
    report = examine()
    wrong = [finding for part in report.values() for finding in part if finding.state == WRONG]
    if args.json:
        print(json.dumps({name: [asdict(f) for f in part] for name, part in report.items()}, indent=2))
    else:
        for name, part in report.items():
            for finding in part:
                print(f"{finding.state:5}  {name:11}  {finding.what}")
                if finding.remedy:
                    print(f"{'':20}-> {finding.remedy}")
        print(f"\n{len(wrong)} thing{'s' * (len(wrong) != 1)} wrong" if wrong else "\nNothing wrong.")
    return 1 if wrong else 0
