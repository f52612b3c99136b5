"""Help a vision-language model with CocoER's exclusion (supplement, section 10).

    cocoer vlm --input IMAGE [--endpoint URL --model NAME]
    cocoer vlm --index INDEX --persons 200 --endpoint URL --model NAME

Four questions a person: prompt, multi_level, and both with kappa (the first excluded level named, or its crop left out).
Nothing is sent anywhere without --endpoint: then the questions are only written. With it, images of the people go to that
address. The key comes from the environment variable --key-variable (default OPENAI_API_KEY). Over an index: mAP (EMOTIC) or
accuracy (CAER-S) of every variant. Stopped or failed runs go on from the cache with the same command.
Exit 0: done. 1: some questions have no answer, or the endpoint gave up. 2: wrong usage or something needed is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, add_persons, command_parser
from cocoer.errors import DetectorError
from cocoer.vlm.prompts import DEFAULT_WORDINGS, VARIANTS, Question, questions, read_sets, read_wordings, wording_of

if TYPE_CHECKING:
    from PIL import Image

    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import PersonPrediction
    from cocoer.vlm.run import Row

MOST_SECONDS = 86_400

Person = tuple[str, "PersonPrediction", "Image.Image", "tuple[str, ...] | None"]
"""Key, prediction, image, and labels where they are known."""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = command_parser("vlm", __doc__, allow_abbrev=False)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--input", metavar="IMAGE", help="ask about the people of this image")
    what.add_argument("--index", metavar="INDEX", help="folder of a person index, or one of its .jsonl files")
    p.add_argument(
        "--endpoint",
        metavar="URL",
        help="OpenAI-compatible, e.g. http://127.0.0.1:8000/v1; default: no request is sent",
    )
    p.add_argument("--model", help="the model's name at the endpoint")
    p.add_argument(
        "--key-variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable that holds the key"
    )
    p.add_argument("--variants", default=",".join(VARIANTS), metavar="LIST", help=f"of {', '.join(VARIANTS)}")
    p.add_argument("--prompts", default=str(DEFAULT_WORDINGS), metavar="YAML", help="file of named sets of wordings")
    p.add_argument(
        "--wording", metavar="NAME", help="a set of that file; default: the paper's for its data sets, else ours"
    )
    add_options(p, "--split", "--allow-outside", "--boxes", "--checkpoint", "--detector", "--device", "--seed")
    p.add_argument("--root", help="folder of the index's images; default: the parent of the index folder")
    add_persons(p, 100, older="--num")
    p.add_argument("--timeout", type=float, default=60.0, help="seconds for one request")
    p.add_argument("--attempts", type=int, default=4, help="per question, with growing waits between them")
    p.add_argument("--max-requests", type=int, default=10_000, help="no more are sent (default: %(default)s)")
    p.add_argument("--output", default="outputs/vlm", metavar="FOLDER", help="default: outputs/vlm")
    args = p.parse_args(argv)
    args.variants = tuple(args.variants.split(","))
    if unknown := [name for name in args.variants if name not in VARIANTS]:
        p.error(f"--variants: unknown {', '.join(unknown)}; the choices are {', '.join(VARIANTS)}")
    if args.endpoint and not args.model:
        p.error("--endpoint wants --model, the model's name there")
    if not 0 < args.timeout <= MOST_SECONDS or min(args.attempts, args.persons, args.max_requests) < 1 or args.seed < 0:
        p.error(f"--timeout wants up to {MOST_SECONDS:,} seconds; the other numbers 1 or more, --seed 0 or more")
    return args


@reports(
    "vlm",
    usage=(ValueError, OSError, DetectorError),
    failed=(RuntimeError,),
    interrupted="the same command continues from the cache",
)
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    from cocoer.files import hold_folder
    from cocoer.paths import refuse_input

    for name in ("answers.jsonl", "questions.jsonl", "summary.json"):
        refuse_input(Path(args.output, name))
    with hold_folder(args.output):
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Recognise, then write the questions, or ask them."""
    from cocoer.inference.recognizer import Recognizer

    sets = read_sets(args.prompts)
    if args.wording:
        read_wordings(args.prompts, args.wording)  # a name that is not there is said before the model is loaded
    recognizer = Recognizer.from_options(None, args.checkpoint, args.device, (), args.detector)
    wordings = sets[args.wording or wording_of(recognizer.config.data.dataset, sets)]
    classes, multi_label = recognizer.config.classes, recognizer.config.multi_label
    truth: dict[str, tuple[str, ...]] = {}

    def asked() -> Iterator[tuple[str, dict[str, Question]]]:
        for key, person, image, labels in people(args, recognizer):
            if person.status == "error":
                print(f"cocoer vlm: {key}: {person.message}", file=sys.stderr)
                continue
            if labels is not None:
                truth[key] = labels
            found = questions(image, person, wordings, classes, multi_label)
            yield key, {name: found[name] for name in args.variants}

    folder = Path(args.output)
    if not args.endpoint:
        return write_questions(asked(), folder / "questions.jsonl")
    return ask(args, asked(), truth, folder, (classes, multi_label))


def people(args: argparse.Namespace, recognizer: Recognizer) -> Iterator[Person]:
    """The persons of the image, or those drawn from the index, with their predictions."""
    from cocoer.data.boxes_file import GivenBoxes
    from cocoer.data.decode import decode_image
    from cocoer.data.index import read_index, split_path
    from cocoer.studies.case_studies import case_studies, choose_persons

    if args.input:
        image = decode_image(args.input, recognizer.config.inference.max_pixels)
        for person in recognizer(image, GivenBoxes(args.boxes, True)(args.input, Path(args.input))):
            yield f"{Path(args.input).name}#{person.person}", person, image, None
        return
    records = read_index(args.index, args.split, recognizer.config.classes)
    chosen = [records[i] for i in choose_persons(len(records), args.persons, args.seed)]
    root = Path(args.root) if args.root else split_path(args.index, args.split).parent.parent
    for case, image in case_studies(recognizer, chosen, root, args.allow_outside):
        yield case.key, case.person, image, case.truth


def write_questions(asked: Iterator[tuple[str, dict[str, Question]]], path: Path) -> int:
    """What would be sent, without the images' bytes."""
    from cocoer.files import write_text

    lines = []
    for key, variants in asked:
        for name, question in variants.items():
            sizes = [list(p.size) for p in question.images]
            row = {"key": key, "variant": name, "system": question.system, "text": question.text, "images": sizes}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
    print(f"{len(lines)} questions -> {path}; no --endpoint, so nothing was sent")
    return 0


def ask(
    args: argparse.Namespace,
    asked: Iterator[tuple[str, dict[str, Question]]],
    truth: dict[str, tuple[str, ...]],
    folder: Path,
    task: tuple[tuple[str, ...], bool],
) -> int:
    """Send the questions and sum up what came."""
    from tqdm import tqdm

    from cocoer.vlm.client import ChatClient, Limits
    from cocoer.vlm.run import ask_all

    limits = Limits(timeout=args.timeout, attempts=args.attempts, requests=args.max_requests)
    key = os.environ.get(args.key_variable, "")
    client = ChatClient(args.endpoint, args.model, folder / "cache", key, limits)
    rows: list[Row] = []
    try:
        for row in tqdm(
            ask_all(client, asked, *task, folder / "answers.jsonl"), desc="questions", delay=1, disable=None
        ):
            rows.append(row)
            if args.input:
                print(f"{row.key} {row.variant}: {', '.join(row.labels) or row.status} {row.message}".rstrip())
    finally:
        report(rows, truth, folder, task, args.variants, args.model)
        print(
            f"{client.sent} requests, {sum(r.cached for r in rows)} answers from the cache -> {folder / 'answers.jsonl'}"
        )
    return 1 if any(row.status == "failed" for row in rows) else 0


def report(
    rows: list[Row],
    truth: dict[str, tuple[str, ...]],
    folder: Path,
    task: tuple[tuple[str, ...], bool],
    variants: Sequence[str],
    model: str,
) -> None:
    """summary.json and, where labels are known, a table: one row per variant over the persons that all variants answered.

    A failed question leaves its person out of every variant, so that they are compared on the same persons; a refusal or an
    answer without a label counts as no label.
    """
    import numpy as np

    from cocoer.evaluation.metrics import average_precision, mean_over_classes
    from cocoer.files import write_text
    from cocoer.report.text import table
    from cocoer.vlm.run import scores_of

    classes, multi_label = task
    answered = Counter(row.key for row in rows if row.status != "failed")
    keys = [key for key in truth if answered[key] == len(variants)]
    metric = "mAP" if multi_label else "accuracy"
    summary: dict[str, Any] = {"model": model, "persons": len(keys), "variants": {}}
    for variant in variants:
        counts = Counter(row.status for row in rows if row.variant == variant)
        said: dict[str, Any] = dict(counts)
        if keys:
            scores = scores_of(rows, keys, variant, classes)
            targets = np.array([[name in truth[key] for name in classes] for key in keys], dtype=np.float64)
            said[metric] = (
                mean_over_classes(average_precision(scores, targets))
                if multi_label
                else float((scores * targets).sum(1).mean())
            )
        summary["variants"][variant] = said
    write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    if keys:
        statuses = ("ok", "refused", "no_label", "failed")
        lines = [
            [name, 100 * said[metric], *(said.get(s, 0) for s in statuses)]
            for name, said in summary["variants"].items()
        ]
        print(f"{model} on {len(keys)} persons, percent")
        print(table(["variant", metric, *statuses], lines, digits=2))
