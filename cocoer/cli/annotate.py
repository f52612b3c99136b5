"""Emotions of the people in an archive of images, on one machine or many: `cocoer annotate INPUT --output OUT`.

INPUT: a folder, a bucket (s3://, gs://, ...), a Parquet manifest (columns id, uri and perhaps boxes), WebDataset .tar shards.
OUT: a Parquet data set with one row an image and its persons nested. The same command again goes on where a run stopped, whatever
stopped it, and every image stands in OUT once. `cocoer annotate flatten OUT --table people.csv` makes a table of people.
Exit 0: all done. 1: some images have errors (their rows say which), or the run stopped. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.cli.predict import announce, processes, say
from cocoer.cli.talk import MOST_LINES
from cocoer.errors import EngineError

if TYPE_CHECKING:
    from cocoer.inference.recognizer import Recognizer
    from cocoer.scale.dataset import Totals
    from cocoer.scale.worker import Job

CHUNK, MOST_CHUNK = 256, 1_000_000

EPILOG = """examples:
  cocoer annotate photos/ --output outputs/photos
  torchrun --nproc-per-node 4 -m cocoer annotate photos/ --output outputs/photos
  cocoer annotate 's3://bucket/shards/{0000..0199}.tar' --output s3://bucket/emotions --engine ray --address auto --actors 16
  cocoer annotate flatten outputs/photos --table people.csv
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line. Leaves the program with code 2 on wrong usage."""
    p = command_parser("annotate", __doc__, epilog=EPILOG, allow_abbrev=False)
    p.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="folder, bucket, manifest.parquet, shards (.tar), or image"
    )
    p.add_argument("--output", required=True, metavar="OUT", help="folder or bucket of the data set")
    p.add_argument("--engine", choices=("local", "ray"), default="local",
                   help="default: local (alone, or under torchrun)")  # fmt: skip
    p.add_argument("--actors", type=int, default=1, metavar="N", help="ray: recognisers at work (default: 1)")
    p.add_argument("--address", help="ray: the cluster, e.g. auto (default: $RAY_ADDRESS, else one is started here)")
    p.add_argument("--gpus-per-actor", type=float, default=0.0, metavar="G",
                   help="ray: may be a part, e.g. 0.5 (default: 0)")  # fmt: skip
    p.add_argument("--chunk", type=int, default=CHUNK, metavar="N",
                   help="images of one task and one file (default: %(default)s)")  # fmt: skip
    p.add_argument("--retry-errors", action="store_true", help="do the images again whose rows have an error")
    add_options(p, "--config", "--checkpoint", "--detector", "--device", "--set", "--no-verify", "--quiet")
    args = p.parse_intermixed_args(argv)
    if args.actors < 1 or not 1 <= args.chunk <= MOST_CHUNK or args.gpus_per_actor < 0:
        p.error(f"--actors wants 1 or more, --chunk 1 to {MOST_CHUNK:,}, --gpus-per-actor 0 or more")
    if args.engine == "ray" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        p.error("--engine ray starts its own processes: leave torchrun out")
    return args


@reports(
    "annotate", (ValueError, FileNotFoundError), (EngineError,), interrupted="the same command continues",
    most_lines=MOST_LINES,
)  # fmt: skip
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return flattened(words[1:]) if words[:1] == ["flatten"] else run(parse(words))


@reports("annotate flatten", (ValueError,), ())
def flattened(words: Sequence[str]) -> int:
    """`cocoer annotate flatten`."""
    p = command_parser("annotate flatten", "The table of people of a data set.")
    p.add_argument("dataset", metavar="OUT", help="folder or bucket that cocoer annotate wrote")
    p.add_argument("--table", type=Path, required=True, metavar="FILE", help=".parquet or .csv, one line a person")
    args = p.parse_args(words)
    from cocoer.report.flatten import flatten

    print(f"{flatten(args.dataset, args.table)} lines in {args.table}", file=sys.stderr)
    return 0


def run(args: argparse.Namespace) -> int:
    """List the input, skip finished images, process the rest, print the totals."""
    from cocoer.files import hold_folder
    from cocoer.inference.recognizer import Recognizer
    from cocoer.scale import dataset
    from cocoer.scale.listing import list_inputs
    from cocoer.scale.places import place_of
    from cocoer.scale.worker import Job

    out = place_of(args.output)
    with ExitStack() as stack:
        runtime = stack.enter_context(processes(args))
        device = str(runtime.device) if args.engine == "local" else args.device
        config, checkpoint = _whole(args.config), _whole(args.checkpoint)
        options = (config, checkpoint, device, tuple(args.overrides), args.detector, not args.no_verify)
        recognizer = Recognizer.from_options(*options)
        say(args, announce(recognizer, args.device), runtime.is_main)
        # Of several inputs the ids begin with what was typed; one may be typed in another way the next time.
        inputs = [place_of(args.inputs[0]).uri] if len(args.inputs) == 1 else args.inputs
        facts = dataset.run_facts(recognizer, inputs)
        roots = () if recognizer.config.data.allow_outside else _roots(args.inputs)
        note = {"cocoer": json.dumps(facts, ensure_ascii=True)}
        job = Job(out.uri, options, recognizer.about["sha256"], roots, note)
        manifest, chunks = None, 0
        if runtime.is_main:
            if out.local is not None:
                stack.enter_context(hold_folder(out.local))
            manifest, videos = list_inputs(args.inputs)
            say(args, f"{videos} videos are left out; cocoer predict reads them" if videos else "", True)
            dataset.begin(out, facts)
            done, remarks = dataset.settle(out, args.retry_errors)
            chunks, left = dataset.plan(manifest, done, args.chunk, job.todo)
            for remark in [*remarks, f"{manifest.num_rows} images, {left} to do, in {chunks} chunks"]:
                say(args, remark, True)
        chunks = runtime.from_main(chunks)
        answer(args, job, chunks, recognizer, runtime)
        runtime.gather(None)  # until every process has written
        if manifest is None:
            return 0
        totals = dataset.finish(out, manifest)
        say(args, summary(totals, args.output), True)
        return 1 if totals.failed else 0


def answer(args: argparse.Namespace, job: Job, chunks: int, recognizer: Recognizer, runtime: Any) -> None:
    """Process the chunks with the chosen engine."""
    from tqdm import tqdm

    from cocoer.scale.local import annotate_locally

    if not chunks:
        return
    talk = not args.quiet and runtime.is_main and sys.stderr.isatty()
    if args.engine == "ray":
        from cocoer.scale.ray_engine import Pool, annotate_on_ray

        del recognizer  # each actor has its own
        annotate_on_ray(job, chunks, Pool(args.actors, args.address, args.gpus_per_actor), talk)
        return
    with tqdm(unit="image", disable=not talk, delay=2) as bar:
        for images in annotate_locally(job, chunks, recognizer, (runtime.rank, runtime.world_size)):
            bar.update(images)


def _whole(path: str | None) -> str | None:
    """A path as other processes can use it; a name that is no file stays."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path


def _roots(inputs: Sequence[str]) -> tuple[str, ...]:
    """The folders that may hold the local images of a manifest: the inputs' folders and the working folder; empty: any folder."""
    if not any(text.endswith(".parquet") for text in inputs):
        return ()
    local = [Path(text) for text in inputs if "://" not in text]
    return tuple(str(p) for p in {Path.cwd(), *((p if p.is_dir() else p.parent).resolve() for p in local)})


def summary(totals: Totals, output: str) -> str:
    """The last line."""
    failed = f", {totals.failed} with errors" if totals.failed else ""
    return f"{totals.images} images, {totals.persons} persons{failed}; data set in {output}"
