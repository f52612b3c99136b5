"""The whole system on synthetic scenes, from nothing to answers: what `make demo` runs after the install.

Generates a small demo world, looks at the images of test_imgs/ and at one real photograph that comes with insightface,
evaluates the shipped demonstration weights with coordination on and off, trains a short run, and ends with
one screen. Each step is a command that you can run yourself; it is printed before it runs. Exit 1 when a step fails.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cocoer.cli.faults import reports
from cocoer.cli.options import command_parser
from cocoer.errors import CocoerError
from cocoer.files import hold_folder, write_text
from cocoer.weights import places
from cocoer.weights.catalog import DEMO_CHECKPOINT

UNSEEN_SEED = 7041
"""Seed of the demo's own scenes; the shipped weights were trained on seed 0."""

# The people of insightface's t1.jpg (1280 x 886 pixels), measured by hand: body and head, xyxy.
T1_PEOPLE = [
    {"body": [0, 232, 306, 886], "head": [20, 232, 190, 405]},
    {"body": [262, 102, 745, 670], "head": [265, 102, 425, 262]},
    {"body": [340, 220, 680, 640], "head": [465, 220, 608, 400]},
    {"body": [637, 290, 928, 625], "head": [745, 290, 876, 470]},
    {"body": [876, 2, 1280, 660], "head": [880, 2, 1058, 210]},
    {"body": [985, 235, 1280, 715], "head": [1122, 235, 1266, 440]},
]

_EVALUATE = "evaluate --config configs/demo_emotic.yaml --root {data} --index {data}/index --checkpoint {weights}"
STEPS = (
    (
        "scenes", "a small demo world, in EMOTIC's format",
        "prepare demo --output {data} --force --dataset emotic --seed {seed} --train {persons} --val 150 --test {test}",
    ),
    ("images", "answers for test_imgs/", "predict --input {images} --output {out}/images --figure"),
    (
        "photograph", "a real photograph with six people, boxes given",
        "predict --input {image} --boxes {boxes} --output {out}/images",
    ),
    ("evaluation", "the shipped weights on unseen scenes", f"{_EVALUATE} --output {{out}}/evaluation"),
    (
        "", "the same without coordination",
        f"{_EVALUATE} --set model.coordination.update=none --output {{out}}/evaluation_no_update",
    ),
    (
        "training", "a short training run (CLIP and backbone start from checkpoints/demo)",
        "train --config configs/demo_emotic.yaml --force --set optim.decay_every=3 vocabulary_stage.epochs=2 "
        "optim.epochs={epochs} run.dir={out}/short_run data.root={data} data.index={data}/index",
    ),
)  # fmt: skip
"""The demo's commands: name of the step (empty: its time is not printed), title, and words with places to fill in."""


class StepFailed(CocoerError, RuntimeError):
    """A command of the demo that did not end with 0."""


def run(title: str, *command: str) -> float:
    """Announce and run one command with this interpreter; returns its seconds. Raises StepFailed."""
    print(f"\n== {title}\n$ cocoer {shlex.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "cocoer", *command], check=False).returncode
    if code != 0:
        raise StepFailed(f"{title}: the command above ended with {code}")
    return time.monotonic() - start


def photograph(folder: Path) -> tuple[Path, Path]:
    """Where insightface's photograph of six people is, and a boxes file for it in `folder`."""
    spec = find_spec("insightface")
    if spec is None or spec.origin is None:
        raise StepFailed(f"insightface is not installed: {places.installs('insightface')}")
    image = Path(spec.origin).parent / "data" / "images" / "t1.jpg"
    boxes = folder / "t1.boxes.json"
    write_text(boxes, json.dumps({"persons": T1_PEOPLE}))
    return image, boxes


def curve(folder: Path) -> tuple[list[float], list[float]]:
    """Losses and validation mAPs of a run, in order, from its log.jsonl."""
    from cocoer.report.runlog import LOG_NAME, read_log

    records = read_log(folder / LOG_NAME)
    losses = [r["loss"] for r in records if r["kind"] == "step"]
    scores = [r["mAP"] for r in records if r["kind"] == "eval"]
    return losses, scores


def summary(out: Path, seconds: dict[str, float]) -> str:
    """The last screen: what was done, the numbers, and where the images are."""

    def numbers(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((out / name / "evaluation.json").read_text(encoding="utf-8"))
        return loaded

    on, off = numbers("evaluation"), numbers("evaluation_no_update")
    first = on["contradiction"]["first_excluded"]
    losses, scores = curve(out / "short_run")
    tenth = max(1, len(losses) // 10)
    start, end = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    images = sorted((out / "images").glob("*.png"))
    if not end < start or not scores[-1] > scores[0]:
        raise StepFailed(
            f"the short run did not learn: loss {start:.3f} -> {end:.3f}, mAP {scores[0]:.3f} -> {scores[-1]:.3f}"
        )
    lines = [
        "=" * 78,
        "cocoer demo: all steps done. All numbers are from SYNTHETIC scenes, not from EMOTIC or CAER-S.",
        "=" * 78,
        f"images     {len(images)} annotated, in {out / 'images'}/ (the photograph: t1.png)",
        "             the demo weights were trained on drawn people only; their predictions on photographs are meaningless",
        f"shipped      mAP {100 * on['headline']['value']:.1f} % on {on['persons']} unseen persons; class frequencies alone give "
        f"{100 * on['class_frequency_mAP']:.1f} %",
        f"             without coordination {100 * off['headline']['value']:.1f} %",
        f"competition  first excluded level is the contradicting one in {100 * first['value']:.0f} % of "
        f"{on['contradiction']['persons']} contradicted persons (chance 33 %)",
        f"short run    loss {start:.2f} -> {end:.2f}, validation mAP {100 * scores[0]:.1f} -> {100 * scores[-1]:.1f} %",
        "time         " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items() if name),
        "",
        "next         python inference.py --input YOUR_IMAGE      see README.md for real weights and data",
        "=" * 78,
    ]
    return "\n".join(lines)


@reports("demo", usage=(), failed=(StepFailed,))
def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; returns the exit code."""
    parser = command_parser("demo", __doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="where everything goes")
    parser.add_argument("--persons", type=int, default=600, help="persons of the short run's training split")
    parser.add_argument("--test", type=int, default=300, help="persons of the test split")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of the short run")
    args = parser.parse_args(argv)
    out: Path = args.output
    with hold_folder(out):
        image, boxes = photograph(out)
        known = vars(args) | {"out": out, "data": out / "data", "seed": UNSEEN_SEED, "image": image, "boxes": boxes}
        known |= {"weights": places.shown(DEMO_CHECKPOINT), "images": places.shown(places.SHIPPED / "test_imgs")}
        seconds = {name: run(title, *(w.format(**known) for w in words.split())) for name, title, words in STEPS}
        print("\n" + summary(out, seconds))
    return 0
