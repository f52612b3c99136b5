"""Emotions of the people in your images: `python inference.py --input IMAGE|FOLDER|GLOB|LIST.txt|VIDEO|-`.

Writes an annotated PNG and a JSON per image into --output, and for several images results.jsonl and results.csv.
Exit 0: all done. 1: some inputs failed (each named, the others written). 2: wrong usage or something needed is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.cli.talk import MOST_LINES, shown_faults
from cocoer.outputs import SYNTHETIC
from cocoer.report.text import escaped, printable

if TYPE_CHECKING:
    from cocoer.config import Config
    from cocoer.data.boxes_file import GivenBoxes
    from cocoer.data.inputs import Survey
    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import ImageResult
    from cocoer.report.results import ResultFolder

FORMATS = ("json", "csv", "png")
TABLES = ("csv", "parquet", "coco", "labelstudio")
"""Formats with all images in one file."""
KNOWN = (*FORMATS, *TABLES[1:])
ROWS = "results.jsonl"
MOST_SUMMARIES = 30
"""Up to this number of images each prediction is printed; above it there is a progress bar."""

MOST_ERRORS = 20
"""Maximum number of printed errors; the results contain all."""

EPILOG = """examples:
  cocoer predict photo.jpg
  cocoer predict photos/ --recursive --output outputs/photos --resume
  cocoer predict a.jpg b.jpg --boxes boxes.json --checkpoint checkpoints/release --figure
"""


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    p = command_parser("predict", __doc__, epilog=EPILOG, allow_abbrev=False)
    p.add_argument("images", nargs="*", metavar="INPUT", help="the same as --input")
    p.add_argument("--input", nargs="+", default=[], action="extend", metavar="WHAT",
                   help="images, folders, globs, lists (.txt, a path a line), videos, or - for a list on stdin")  # fmt: skip
    add_options(p, "--config", "--checkpoint", "--boxes", "--detector", "--device", "--set", "--no-verify", "--quiet")
    p.add_argument("--batch-size", type=int, metavar="N", help="persons per forward pass (default: the config's)")
    p.add_argument("--output", default="outputs", metavar="FOLDER", help="where results go (default: outputs)")
    p.add_argument("--figure", action="store_true", help="also draw the paper's case-study panel of each person")
    p.add_argument("--format", metavar="LIST",
                   help=f"comma-separated, of {', '.join(KNOWN)} (default: {','.join(FORMATS)})")  # fmt: skip
    p.add_argument("--recursive", action="store_true", help="include subfolders")
    p.add_argument("--every", type=int, default=1, metavar="N", help="use every N-th frame of a video (default: 1)")
    p.add_argument("--track", action="store_true",
                   help="videos: keep people's ids from frame to frame, smooth probabilities along each track, write NAME.mp4 "
                   "and NAME.timeline.png (without --format: rows and table, no file per frame)")  # fmt: skip
    p.add_argument("--resume", action="store_true", help="skip images that results.jsonl in the output folder contains")
    p.add_argument("--debug", action="store_true", help="show the traceback of every fault")
    return p


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Leaves the program with code 2 on wrong usage."""
    p = parser()
    args = p.parse_args(argv)
    args.input = [*args.images, *args.input]
    if not args.input:
        p.error("wanted an image, a folder, a glob, a list, a video or -, got none")
    formats = args.format.split(",") if args.format else ["csv"] if args.track else list(FORMATS)
    if args.track and (args.resume or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        p.error("--track follows people from the first frame on, in one process: leave --resume and torchrun out")
    if unknown := [name for name in formats if name not in KNOWN]:
        p.error(
            f"--format: unknown {', '.join(map(repr, unknown))}; wanted a comma-separated list of {', '.join(KNOWN)}"
        )
    if args.every < 1 or (args.batch_size is not None and args.batch_size < 1):
        p.error("--every and --batch-size want a whole number of at least 1")
    if args.batch_size is not None:
        args.overrides.append(f"inference.batch_size={args.batch_size}")
    args.formats, args.table_asked = frozenset(formats), bool(args.format) and not set(TABLES).isdisjoint(formats)
    return args


@reports(
    "predict", (ValueError, FileNotFoundError), (), interrupted="the same command with --resume continues",
    most_lines=MOST_LINES,
)  # fmt: skip
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse(argv)
    with shown_faults() if args.debug else nullcontext():
        return run(args)


def run(args: argparse.Namespace) -> int:
    """All inputs through the recogniser, alone or as one of several processes that torchrun started."""
    # Everything slow is imported behind the parser, so that --help and wrong usage answer at once.
    from cocoer.data.boxes_file import GivenBoxes
    from cocoer.data.inputs import STDIN, is_single_image, read_stdin, survey_inputs
    from cocoer.files import hold_folder
    from cocoer.inference.pipeline import share_cores
    from cocoer.inference.recognizer import Recognizer
    from cocoer.report.results import ResultFolder, check_same_weights, start_over

    output = Path(args.output)
    single = is_single_image(args.input)
    boxes = GivenBoxes(args.boxes, single)
    stdin = read_stdin() if STDIN in args.input else None  # to its end: what is read must be known before any writing
    with ExitStack() as stack:
        runtime = stack.enter_context(processes(args))
        options = args.config, args.checkpoint, str(runtime.device), args.overrides, args.detector
        recognizer = Recognizer.from_options(*options, verify=not args.no_verify)
        if not single:
            share_cores(recognizer)
        say(args, announce(recognizer, args.device), runtime.is_main)
        read = (args.boxes, args.config, args.checkpoint)
        outside = recognizer.config.data.allow_outside
        survey = survey_inputs(args.input, args.recursive, output, stdin, read, outside, boxes.expect)
        say(args, boxes.check_used(), runtime.is_main)
        done: set[str] | None = None
        if runtime.is_main:
            stack.enter_context(hold_folder(output))
            if args.resume:
                check_same_weights(output, recognizer.about["sha256"])
            done = start_over(output, args.resume, survey.reads)
            write_config(output, recognizer.config, survey)
        done = runtime.from_main(done)
        batch = not single or args.table_asked
        share = (runtime.rank, runtime.world_size)
        folder = ResultFolder(output, args.formats, args.figure, batch, share, survey.reads)
        with closing(folder):
            counts = process(args, recognizer, boxes, folder, Work(done, share, stdin, survey.total))
        totals = [sum(column) for column in zip(*runtime.gather(counts), strict=True)]
        if runtime.is_main:
            folder.finish()
            say(args, summary(totals, len(done), output), True)
        return 1 if totals[2] else 0


class OneProcess:
    """This process alone, on the CPU, in place of `Runtime`: exported files and twins run in onnxruntime, without torch."""

    rank, world_size, is_main, device = 0, 1, True, "cpu"

    def gather(self, value: Any) -> list[Any]:
        """Every process's value."""
        return [value]

    def from_main(self, value: Any) -> Any:
        """The value of rank 0."""
        return value


def processes(args: argparse.Namespace) -> AbstractContextManager[Any]:
    """This process among those of the run."""
    if "WORLD_SIZE" not in os.environ and (args.device == "cpu" or str(args.checkpoint).endswith(".onnx")):
        return nullcontext(OneProcess())
    from cocoer.runtime import start_runtime

    return start_runtime(args.device)


def write_config(output: Path, config: Config, survey: Survey) -> None:
    """Write the resolved config beside the results, under another name if a config.yaml exists that cocoer did not write."""
    from cocoer.config import is_resolved, save_config
    from cocoer.report.results import free_name

    def may_write(path: Path) -> bool:
        return not survey.reads(path) and (not os.path.lexists(path) or is_resolved(path))

    name = free_name(lambda stem: [output / f"{stem}.yaml"], "config", may_write)
    save_config(config, output / f"{name}.yaml")


def announce(recognizer: Recognizer, asked: str) -> str:
    """The weights, mode and device in use, in one or two lines."""
    about = recognizer.about
    chosen = " (chosen by --device auto)" if asked == "auto" else ""
    runs = ", its ONNX twin in onnxruntime" if about.get("backend") else ""
    lines = [
        f"weights {about['weights']} ({about['dataset']}, {about['mode']} mode) on {about['device']}{chosen}{runs}"
    ]
    if recognizer.synthetic:
        lines.append(f"{SYNTHETIC}. For photographs: `cocoer setup photos`.")
    return "\n".join(lines)


@dataclass(frozen=True)
class Work:
    """What there is to do. done: keys of earlier rows. share: (rank, processes). stdin, total: as in `data.inputs.Survey`."""

    done: set[str]
    share: tuple[int, int]
    stdin: bytes | None
    total: int | None


def process(
    args: argparse.Namespace, recognizer: Recognizer, boxes: GivenBoxes, folder: ResultFolder, work: Work
) -> tuple[int, int, int]:
    """This process's share of the input. Returns counts: images, persons, images with an error."""
    from tqdm import tqdm

    from cocoer.cli.films import tracked
    from cocoer.data.inputs import iterate_inputs
    from cocoer.inference.pipeline import predict_many
    from cocoer.report.draw import LARGEST_SIDE
    from cocoer.report.text import summarize
    from cocoer.report.writer import write_results

    (rank, processes), done = work.share, work.done
    items = iterate_inputs(
        args.input,
        recursive=args.recursive,
        every=args.every,
        leave_out=folder.folder,
        allow_outside=recognizer.config.data.allow_outside,
        wanted=lambda position, key: position % processes == rank and key not in done,
        stdin=work.stdin,
    )
    total = work.total
    left = None if total is None else max(0, (total + processes - 1 - rank) // processes - len(done) // processes)
    results = predict_many(
        recognizer,
        items,
        lambda item: boxes(item.name, item.source if isinstance(item.source, Path) else None, item.frame),
        keep_side=LARGEST_SIDE if folder.wants_image or args.track else 0,
    )
    if args.track:
        results = tracked(results, recognizer.rule, folder.folder, args.every)
    images = persons = failed = 0
    talk = not args.quiet and total is not None and total <= MOST_SUMMARIES and processes == 1
    with tqdm(total=left, unit="image", disable=args.quiet or talk or not sys.stderr.isatty(), delay=2) as bar:
        for written in write_results(results, folder):
            result = written.result
            images, persons = images + 1, persons + len(result.persons)
            wrong = faults(result)
            failed += bool(wrong)
            if wrong and failed <= MOST_ERRORS:
                bar.write(f"cocoer predict: error: {printable(wrong)}", file=sys.stderr)
            if written.renamed and not args.quiet and not talk:
                bar.write(f"{printable(result.image)}: written as {printable(written.files[0].name)}", file=sys.stderr)
            if talk and not wrong:
                note = " (the usual name is taken by a file of yours)" if written.renamed else ""
                print(
                    escaped(summarize(result))
                    + "".join(f"\n  -> {printable(str(path))}{note}" for path in written.files)
                )
            bar.update()
    if failed > MOST_ERRORS:
        print(f"cocoer predict: {failed - MOST_ERRORS} more errors, see {folder.folder / ROWS}", file=sys.stderr)
    return images, persons, failed


def faults(result: ImageResult) -> str:
    """The errors of an image and its persons, on one line; empty if there are none."""
    name = result.image if result.frame is None else f"{result.image}#{result.frame}"
    if result.status == "error":
        return result.message if result.message.startswith(result.image) else f"{name}: {result.message}"
    wrong = [f"{name}: person {p.person}: {p.message}" for p in result.persons if p.status == "error"]
    return "; ".join(wrong)


def summary(counts: Sequence[int], skipped: int, output: Path) -> str:
    """The last line."""
    images, persons, failed = counts
    parts = [f"{images} image{'s' * (images != 1)}", f"{persons} person{'s' * (persons != 1)}"]
    parts += [f"{failed} with errors"] if failed else []
    parts += [f"{skipped} done before"] if skipped else []
    return f"{', '.join(parts)}; results in {output}"


def say(args: argparse.Namespace, text: str, aloud: bool) -> None:
    """Print a remark on standard error, unless --quiet; aloud: False prints nothing."""
    if text and aloud and not args.quiet:
        print(text, file=sys.stderr)
