"""Emotions over time, one panel per tracked person, with the level that was excluded first below.

A timeline keeps means over at most `MOST_BINS` stretches of time, so its size does not grow with the video.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cocoer.names import LEVELS
from cocoer.outputs import SYNTHETIC, ImageResult
from cocoer.report.plots import STYLE, with_note

MOST_BINS = 600
MOST_PEOPLE = 8
MOST_EMOTIONS = 5
LEAST_S = 0.5
"""Seconds for which a person must be visible to be shown."""

LEVEL_COLOURS = {"head": "#E69F00", "body": "#009E73", "context": "#0072B2"}


@dataclass
class _Bin:
    """Sums over the frames of one stretch: how many, probabilities by class, first exclusions by level."""

    frames: int
    probabilities: NDArray[np.float64]
    excluded: NDArray[np.float64]

    def add(self, other: _Bin) -> None:
        self.frames += other.frames
        self.probabilities = self.probabilities + other.probabilities
        self.excluded = self.excluded + other.excluded


@dataclass
class Timeline:
    """A tracked video's results over time; `add` them in order.

    rate: frames per second of the video. every: the results have every n-th frame.
    """

    rate: float
    every: int = 1
    classes: tuple[str, ...] = ()
    synthetic: bool = False
    _width: int = 1  # frames a stretch, of the video
    _people: dict[str | int, dict[int, _Bin]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, result: ImageResult) -> None:
        """One frame's result."""
        self.synthetic |= result.synthetic
        number = (result.frame or 0) // self._width
        if number >= MOST_BINS:
            self._halve()
            number = (result.frame or 0) // self._width
        for person in result.persons:
            by_name = person.probabilities.get("pred", {})
            track = person.boxes.track if person.boxes else None
            if track is None or not by_name:
                continue
            self.classes = self.classes or tuple(by_name)
            first = person.competition.exclusion[0] if person.competition and person.competition.exclusion else None
            new = _Bin(
                1, np.array([by_name[n] for n in self.classes]), np.array([float(level == first) for level in LEVELS])
            )
            bins = self._people[track]
            if number in bins:
                bins[number].add(new)
            else:
                bins[number] = new

    def _halve(self) -> None:
        """Put two stretches together each until the newest frame fits."""
        self._width *= 2
        for track, bins in self._people.items():
            merged: dict[int, _Bin] = {}
            for number, old in bins.items():
                if number // 2 in merged:
                    merged[number // 2].add(old)
                else:
                    merged[number // 2] = old
            self._people[track] = merged

    @property
    def people(self) -> list[str | int]:
        """The tracks that are shown: those that were seen longest, in the order in which they came."""
        frames = {t: sum(b.frames for b in bins.values()) for t, bins in self._people.items()}
        least = LEAST_S * self.rate / self.every
        longest = [t for t in sorted(frames, key=lambda t: -frames[t]) if frames[t] >= least][:MOST_PEOPLE]
        return [t for t in self._people if t in longest]

    def means(self, track: str | int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Seconds [T], mean probabilities [T, k], and shares of the levels that were excluded first [T, L]."""
        bins = sorted(self._people[track].items())
        seconds = np.array([(number + 0.5) * self._width / self.rate for number, _ in bins])
        probabilities = np.stack([b.probabilities / b.frames for _, b in bins])
        return seconds, probabilities, np.stack([b.excluded / b.frames for _, b in bins])

    def figure(self, title: str) -> Figure:
        """A panel per person. Raises ValueError where nobody was tracked."""
        people = self.people
        if not people:
            raise ValueError("timeline: wanted at least one tracked person, got none")
        with style.context(["default", STYLE]):
            figure = Figure(figsize=(9.0, 0.8 + 2.2 * len(people)), layout="constrained")
            FigureCanvasAgg(figure)
            figure.suptitle(title)
            grid = figure.subplots(2 * len(people), 1, squeeze=False, sharex=True, height_ratios=[6, 1] * len(people))[
                :, 0
            ]
            for place, track in enumerate(people):
                self._panel(grid[2 * place], grid[2 * place + 1], track)
            grid[-1].set_xlabel("time (s)")
            keys = [Patch(color=LEVEL_COLOURS[level], label=level) for level in LEVELS]
            figure.legend(handles=keys, title="excluded first", loc="outside right lower", fontsize="small")
        return with_note(figure, SYNTHETIC if self.synthetic else "")

    def _panel(self, lines, strip, track: str | int) -> None:  # type: ignore[no-untyped-def]  # matplotlib's axes
        seconds, probabilities, excluded = self.means(track)
        step = max(self._width, self.every) / self.rate
        gaps = np.flatnonzero(np.diff(seconds) > 1.5 * step) + 1
        for k in np.argsort(-probabilities.mean(0))[:MOST_EMOTIONS]:
            lines.plot(
                np.insert(seconds, gaps, np.nan),
                np.insert(probabilities[:, k], gaps, np.nan),
                label=self.classes[k],
                marker="",
                linestyle="-",
            )
        lines.set_ylim(0, 1)
        lines.set_ylabel("probability")
        lines.set_title(f"person #{track}", loc="left", fontsize="medium")
        lines.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
        low = np.zeros(len(seconds))
        for i, level in enumerate(LEVELS):
            strip.bar(seconds, excluded[:, i], step, low, color=LEVEL_COLOURS[level])
            low = low + excluded[:, i]
        strip.set_yticks([])
        strip.set_ylim(0, 1)
        strip.grid(visible=False)
