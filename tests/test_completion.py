"""What the shell is told when somebody presses the tabulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_recognizer import ROOT


def completions(line: str, folder: Path) -> set[str]:
    """As bash asks through argcomplete's hook."""
    out = folder / "answers"
    out.write_text("")
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    asked["_ARGCOMPLETE_STDOUT_FILENAME"] = str(out)
    code = "import sys; from cocoer.cli.main import main; main(); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {word.strip() for word in out.read_text().split("\n")}


@pytest.mark.parametrize(
    ("line", "wanted", "others"),
    [
        ("cocoer pre", {"predict", "prepare"}, {"train", "emotic"}),
        ("cocoer prepare ", {"emotic", "caers", "table", "demo"}, {"predict"}),
        ("cocoer prepare demo --se", {"--seed"}, {"--root"}),
        ("cocoer predict --ch", {"--checkpoint"}, {"--input"}),
        ("cocoer weights fe", {"fetch"}, {"list"}),
    ],
)
def test_commands_and_their_options_are_completed(
    line: str, wanted: set[str], others: set[str], tmp_path: Path
) -> None:
    found = completions(line, tmp_path)
    assert wanted <= found and not others & found
