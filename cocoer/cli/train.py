"""Train CocoER: `python train.py --config configs/emotic.yaml`, alone or under torchrun; see docs/training.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.config import Config, load_config, save_config
from cocoer.data.decode import decode_record
from cocoer.errors import CheckpointError, OutputError, OverwritesInput
from cocoer.export.onnx_export import check_twin_can_be_written, write_twin
from cocoer.files import hold_folder, write_text
from cocoer.outputs import ImageResult
from cocoer.report.draw import draw_result
from cocoer.report.run_report import write_run_report
from cocoer.report.runlog import RunLog
from cocoer.runtime import Runtime, environment, start_runtime
from cocoer.training.examples import Example
from cocoer.training.recognition_stage import LAST_FILE, FitResult, Sink
from cocoer.training.resume import Start, find_start, states_folder
from cocoer.training.run import Stage, fit
from cocoer.training.signals import EXIT_STOPPED
from cocoer.weights import places

EPILOG = """exit codes: 0 done; 1 the run failed (one line says why); 2 wrong usage;
75 a signal (SIGTERM, SIGUSR1) stopped it, in training after its state was saved: start it again with --resume latest"""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("train", __doc__, epilog=EPILOG)
    parser.add_argument("--config", required=True, help="a YAML file, see configs/")
    parser.add_argument("--stage", choices=["both", "vocabulary", "recognition"], default="both", help="default: both")
    add_options(parser, "--set", "--device")
    parser.add_argument("--resume", metavar="latest|FOLDER", help="go on from a training state of run.dir")
    parser.add_argument("--force", action="store_true", help="remove what an earlier run left in run.dir")
    parser.add_argument("--overwrite", action="store_true", dest="force", help=argparse.SUPPRESS)  # its earlier name
    parser.add_argument("--note", default="", help="a sentence that every weights file carries")
    parser.add_argument(
        "--tower-dtype", choices=["fp32", "fp16"], default="fp32", help="how weights store the CLIP tower"
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="at the end leave best.onnx, which prediction on a CPU takes, beside the weights",
    )
    args = parser.parse_args(argv)
    if args.onnx and args.stage == "vocabulary":
        parser.error("--onnx wants weights of the recognition stage; --stage vocabulary leaves none")
    if args.resume and args.force:
        parser.error("--resume goes on with a run and --force removes it; choose one")
    return args


@reports("train")
def main(argv: list[str] | None = None) -> int:
    """Run every seed; returns the exit code."""
    args = arguments(argv)
    config = load_config(args.config, args.overrides)
    if args.onnx:
        check_twin_can_be_written(config)
    with start_runtime(args.device, config.run.threads) as runtime:
        return run_seeds(config, runtime, args)


def run_seeds(config: Config, runtime: Runtime, args: argparse.Namespace) -> int:
    """One run per seed, then mean and deviation where there are several."""
    seeds = config.run.seeds or (config.run.seed,)
    best: dict[int, float] = {}
    for seed in seeds:
        folder = config.run.dir if len(seeds) == 1 else f"{config.run.dir}/seed-{seed}"
        result = run_one(replace(config, run=replace(config.run, seed=seed, seeds=(), dir=folder)), runtime, args)
        if result.stopped_by:
            say(
                runtime,
                f"stopped by {result.stopped_by}; go on with --resume latest (step {result.place.step} is saved)",
            )
            return EXIT_STOPPED
        if result.best is not None:
            best[seed] = result.best
    if len(best) > 1 and runtime.is_main:
        mean, deviation = statistics.mean(best.values()), statistics.stdev(best.values())
        facts = {"split": config.data.select_split, "seeds": best, "mean": mean, "deviation": deviation}
        path = Path(config.run.dir) / "seeds.json"
        write_text(path, json.dumps(facts, indent=1) + "\n")
        name = config.metric
        say(
            runtime,
            f"{name} on {config.data.select_split} over {len(best)} seeds: {100 * mean:.2f} +- {100 * deviation:.2f} %",
        )
    return 0


def run_one(config: Config, runtime: Runtime, args: argparse.Namespace) -> FitResult:
    """One run in its own folder, with its log."""
    stage: Stage = args.stage
    folder = Path(config.run.dir)
    with ExitStack() as stack:
        start = runtime.from_main(attempt_start(config, args, runtime, stack) if runtime.is_main else None)
        if isinstance(start, Exception):
            raise start
        for message in start.messages:
            say(runtime, message)
        dtype = torch.float16 if args.tower_dtype == "fp16" else None
        if not runtime.is_main:
            return fit(config, runtime, start, Sink(lambda record: None), stage=stage)
        record = stack.enter_context(closing(RunRecord(config, runtime, args, start)))
        sink = Sink(record, record.show_people, args.note, dtype, partial(say, runtime))
        result = fit(config, runtime, start, sink, stage=stage, begin=record.begin)
    if result.best is not None:
        name, split = config.metric, config.data.select_split
        epoch = f" of epoch {result.place.best_epoch}" if result.place.best_epoch else ""
        best = f"{100 * result.best:.2f} % {name}{epoch}, selected on {split}, in best.safetensors"
        facts = {"best": best, "seed": f"seed {config.run.seed}, {result.place.step} steps"}
        report = write_run_report(folder, facts | ({"note": args.note} if args.note else {}))
        say(
            runtime,
            f"best {name} on {split}: {100 * result.best:.2f} %, weights in {folder}/best.safetensors, see {report}",
        )
        if args.onnx:
            twin, difference = write_twin(folder / "best.safetensors")
            say(runtime, f"{twin}: their ONNX twin; differs from PyTorch by at most {difference:.1e}")
    return result


class RunRecord:
    """What a run leaves in its folder besides its weights: config, environment and log.

    Nothing is made, and nothing of an earlier run removed, before `begin`, so a start that fails leaves the folder as it was.
    """

    def __init__(self, config: Config, runtime: Runtime, args: argparse.Namespace, start: Start) -> None:
        self._config, self._runtime, self._args, self._start = config, runtime, args, start
        self._log: RunLog | None = None

    def begin(self) -> None:
        """Make the files; with --force the states of an earlier run go first."""
        config, start, folder = self._config, self._start, Path(self._config.run.dir)
        if self._args.force:
            shutil.rmtree(states_folder(config), ignore_errors=True)
        describe_run(config, self._runtime, folder, Path(self._args.config))
        step = start.place.step if start.folder else None
        fresh = start.folder is None and self._args.stage != "recognition"
        self._log = RunLog(folder, step, "recognition", fresh, scalars_every=config.run.log_every)

    @property
    def log(self) -> RunLog:
        """The run's log, once it has begun."""
        assert self._log is not None, "no report before the run has started"
        return self._log

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Take a record of the run."""
        self.log(record)

    def show_people(self, step: int, people: list[Example]) -> None:
        """Draw a few validation people with what each level says, into the run's images and TensorBoard."""
        data = self._config.data
        for i, person in enumerate(people):
            record = person.record
            result = ImageResult(record.image, record.width, record.height, (person.prediction,))
            image = draw_result(decode_record(record, places.given(data.root), data.allow_outside), result)
            self.log.add_image(f"person {i}", image, step, "recognition")

    def close(self) -> None:
        """Close the log, if there is one."""
        if self._log is not None:
            self._log.close()


def attempt_start(
    config: Config, args: argparse.Namespace, runtime: Runtime, stack: ExitStack
) -> Start | CheckpointError | OutputError | OverwritesInput:
    """The run's folder held and `find_start`, or the error as a value, so that rank 0 can tell the others."""
    try:
        check_run_folder(config, Path(args.config))
        stack.enter_context(hold_folder(config.run.dir))
        return Start(None, None, ()) if args.force else find_start(config, args.resume, runtime.world_size)
    except (CheckpointError, OutputError, OverwritesInput) as err:
        return err


def check_run_folder(config: Config, given: Path) -> None:
    """OutputError where a file of a run's name lies in run.dir that no run has left; OverwritesInput for a config to be changed.

    given: the config's file, which may be the run's own; it then stays as it is, and must say what the run does.
    """
    folder = Path(config.run.dir)
    resolved = folder / "config.yaml"
    own = resolved.exists() and given.exists() and resolved.samefile(given)
    if own and load_config(resolved) != config:
        raise OverwritesInput(
            f"{resolved}: is the config of this run, and its values are changed by --set; copy it elsewhere"
        )
    if not (folder / "environment.json").exists():
        for name in ("config.yaml", "log.jsonl", "report.md", "best.safetensors", LAST_FILE):
            if os.path.lexists(folder / name) and not (own and name == "config.yaml"):
                raise OutputError(
                    f"{folder / name}: was left by no training, and it stays; choose another folder with --set run.dir=FOLDER"
                )


def describe_run(config: Config, runtime: Runtime, folder: Path, given: Path) -> None:
    """Resolved config, revision, environment and command, beside everything else of the run.

    given: the config's file; where it is the run's own, it stays as somebody wrote it.
    """
    write_text(folder / "environment.json", json.dumps(environment(runtime), indent=1) + "\n")
    resolved = folder / "config.yaml"
    if not (resolved.exists() and given.exists() and resolved.samefile(given)):
        save_config(config, resolved)


def say(runtime: Runtime, text: str) -> None:
    """A line for the user, from rank 0, on standard error so that it stands above a progress bar."""
    if runtime.is_main:
        print(text, file=sys.stderr, flush=True)
