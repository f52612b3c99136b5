"""The page of the study of readings, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cocoer.report.tables import pipes

_NAMES = {
    "letter": "the letter: theta + delta, step 1.0; penalty as a mean",
    "letter_sum": "the letter; penalty as a sum",
    "relative": "relative step 0.1; penalty as a mean",
    "none": "no update",
    "release": "the published code's update, step 0.1",
}
_TITLES = {"emotic": "EMOTIC's format (mAP)", "caers": "CAER-S's format (accuracy)"}

_RULES = (
    "trained with", "seeds", "mAP", "minus the letter", "mAP, contradicted persons", "mAP of the levels' mean", "first excluded",
)  # fmt: skip
_LOSSES = (
    "scenes", "L_hier", "seeds", "first excluded", "minus training", "score", "minus training", "L_hier of the first",
    "of the last",
)  # fmt: skip
_HEAD = """**Synthetic scenes**: {train} persons to train on, {epochs} epochs, crops of {image_size} pixels, small backbones, no
augmentation; measured on {test} unseen persons with the weights of the last epoch. Percent; mean ± sample deviation over the
seeds, differences paired by seed with a 95 % interval (Student's t). First excluded: share of the contradicted persons whose
contradicting level left first (chance 33.33). Command: `{command}`; it goes on where it was interrupted."""


def page(
    rules: Sequence[tuple[str, ...]], losses: Sequence[tuple[str, ...]], sizes: Mapping[str, Any], command: str
) -> str:
    """Both tables with what must be known to read them. rules, losses: see `studies.readings.summary`."""
    wanted = len(sizes["seeds"])
    head = _HEAD.format(**sizes, command=command)
    if {row[1] for row in rules} | {row[2] for row in losses} != {str(wanted)}:
        head += f" **Of {wanted} seeds not all are done**; each row says how many it has."
    first = pipes([_RULES, *((_NAMES[row[0]], *row[1:]) for row in rules)])
    second = pipes([_LOSSES, *((_TITLES[row[0]], *row[1:]) for row in losses)])
    return "\n\n".join(
        [head, "Update and penalty:", first, "L_hier inside the competition (`model.competition.loss`):", second]
    )
