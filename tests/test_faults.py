"""A command's expected faults: one line on standard error and the exit code of their kind; every other exception passes."""

from __future__ import annotations

import pytest

from cocoer.cli.faults import reports
from cocoer.errors import CheckpointError, ConfigError, MissingExtra, MissingWeights, OutputError


def told(fault: BaseException, **options: object) -> int:
    """The exit code of a command that ends with the fault."""

    @reports("try", **options)  # type: ignore[arg-type]
    def main(argv: object = None) -> int:
        raise fault

    return main()


@pytest.mark.parametrize(
    ("fault", "options", "code"),
    [
        (ConfigError("a"), {}, 2),
        (CheckpointError("a"), {}, 1),
        (ValueError("a"), {}, 1),
        (OSError("a"), {}, 1),
        (ConfigError("a"), {"usage": ()}, 1),
        (ValueError("a"), {"usage": (ValueError,), "failed": ()}, 2),
        (OutputError("a"), {"usage": (OutputError, ValueError), "failed": ()}, 1),
        (KeyboardInterrupt(), {"interrupted": "a"}, 130),
    ],
)
def test_each_kind_has_its_exit_code_and_one_line(
    fault: BaseException, options: dict[str, object], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(fault, **options) == code
    said = capsys.readouterr()
    assert not said.out and len(said.err.splitlines()) == 1 and said.err.startswith("cocoer try: ")
    assert said.err.rstrip().endswith("a")


@pytest.mark.parametrize(
    "fault", [RuntimeError("a defect"), MissingExtra("app", ImportError("gradio")), KeyboardInterrupt()]
)
def test_what_a_command_does_not_expect_passes(fault: BaseException) -> None:
    with pytest.raises(type(fault)):
        told(fault)


def test_missing_weights_bring_the_way_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        told(MissingWeights("no face.onnx"), usage=(MissingWeights,), hint="Without detectors: --heads estimate.") == 2
    )
    assert capsys.readouterr().err.splitlines()[1:] == ["Without detectors: --heads estimate."]
    assert told(CheckpointError("no"), hint="Without detectors: --heads estimate.") == 1
    assert "Without" not in capsys.readouterr().err
