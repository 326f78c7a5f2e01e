"""ECG paper: strips of signals, one below the other, in true proportions.

25 mm a second and 10 mm a millivolt where the figure is
printed at its own size, on a grid of 1 mm and 5 mm, with a calibration pulse of 1 mV for 0.2 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgadv.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPEED = 25.0
"""Paper speed, mm/s."""


GAIN = 10.0
"""Paper gain, mm/mV."""


LEAD_IN = 0.4
"""Seconds of paper before the signal, for the calibration pulse."""


_MARGIN = 6.0  # mm around the strips


_CAPTION = 6.0  # mm above each strip


_TALLEST = 80.0  # mm; a higher strip is drawn at half gain, as recorders do


@dataclass(frozen=True)
class Strip:
    """One line of ECG paper.

    Attributes:
        signal: (samples,) in mV.
        caption: above the strip, left.
        colour: of the trace.
        gain: mm/mV.
        low: lower end in mV, a multiple of 5 mm.
        high: upper end in mV, a multiple of 5 mm.
        ghost: (samples,) in mV, drawn thin and grey beneath; ``None`` for none.
        note: above the strip, right.
    """

    signal: np.ndarray
    caption: str
    colour: str
    gain: float
    low: float
    high: float
    ghost: np.ndarray | None = None
    note: str = ""

    @property
    def height(self) -> float:
        """Of the paper, in mm."""
        return (self.high - self.low) * self.gain


def ecg_paper_axes(
    figure: Figure,
    left: float,
    bottom: float,
    seconds: float,
    low: float,
    high: float,
    *,
    start: float = 0.0,
    gain: float = GAIN,
    speed: float = SPEED,
    pulse: bool = True,
) -> Axes:
    """Axes that are ECG paper: x in seconds, y in mV, 1 mm on the page per mm of paper.

    Args:
        figure: where they go; its size is in print.
        left: mm from the figure's left edge.
        bottom: mm from its lower edge.
        seconds: length of the signal; :data:`LEAD_IN` comes before it.
        low: lower end in mV.
        high: upper end in mV.
        start: time of the first sample, in seconds.
        gain: mm/mV.
        speed: mm/s.
        pulse: draw the calibration pulse: 10 mm high (1 mV at 10 mm/mV), 0.2 s wide.

    Returns:
        The axes; their grids are two line collections with the ids ``grid-1mm`` and ``grid-5mm``,
        the pulse is a line with the id ``calibration``.
    """
    from matplotlib.collections import LineCollection

    width, height = (seconds + LEAD_IN) * speed, (high - low) * gain
    page = figure.get_size_inches() * style.MM_PER_INCH
    axes = figure.add_axes((left / page[0], bottom / page[1], width / page[0], height / page[1]))
    begin, end = start - LEAD_IN, start + seconds
    for name, step, colour, line in (
        ("grid-1mm", 1, style.PAPER_MINOR, 0.35),
        ("grid-5mm", 5, style.PAPER_MAJOR, 0.6),
    ):
        # Counted in whole mm, so that no line is lost or doubled by rounding.
        across = begin + np.arange(0, math.floor(width + 1e-6) + 1, step) / speed
        up = low + np.arange(0, math.floor(height + 1e-6) + 1, step) / gain
        segments = [[(t, low), (t, high)] for t in across] + [[(begin, v), (end, v)] for v in up]
        grid = LineCollection(segments, colors=colour, linewidths=line, zorder=0.5)
        grid.set_gid(name)
        axes.add_collection(grid, autolim=False)
    if pulse:
        top = 10.0 / gain
        at = begin + 0.1
        (line2d,) = axes.plot(
            [begin, at, at, at + 0.2, at + 0.2, start],
            [0, 0, top, top, 0, 0],
            color=style.ORIGINAL,
            linewidth=0.8,
            clip_on=False,
        )
        line2d.set_gid("calibration")
    axes.set_xlim(begin, end)
    axes.set_ylim(low, high)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def limits(values: np.ndarray, least: tuple[float, float], gain: float) -> tuple[float, float]:
    """Ends of a strip in mV that hold the values, at 5 mm lines."""
    step = 5.0 / gain
    low = min(float(values.min()), least[0])
    high = max(float(values.max()), least[1])
    return math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step


def strip_gain(values: np.ndarray) -> float:
    """Gain (mm/mV) at which values in mV fit a strip: the usual one, halved as often as needed."""
    gain = GAIN
    while np.ptp(values) * gain > _TALLEST and gain > 0.1:
        gain /= 2
    return gain


def magnification(peak: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, … that keeps ``peak`` mV within 10 mm at 10 mm/mV."""
    best = 1
    for exponent in range(6):
        for factor in (1, 2, 5):
            if peak * factor * 10**exponent <= 1.0:
                best = factor * 10**exponent
    return best


def busiest_start(delta: np.ndarray, length: int, seconds: float, fs: int) -> float:
    """Start (s) of the window in which a perturbation has the most energy, at a whole 0.2 s.

    Showing where it is strongest hides nothing.
    """
    width = min(round(seconds * fs), length)
    energy = np.concatenate([[0.0], np.cumsum(np.square(delta[:length], dtype=np.float64))])
    starts = np.arange(0, length - width + 1, max(1, round(0.2 * fs)))
    return float(starts[np.argmax(energy[starts + width] - energy[starts])] / fs)


def label(letter: str, p: float | None) -> str:
    """Caption of a strip: its class, and the probability where it is known."""
    return f"class {letter}" + ("" if p is None or not math.isfinite(p) else f" (p = {p:.2f})")


def stack(
    columns: Sequence[tuple[float, float, Sequence[Strip]]],
    title: str,
    foot: str,
    fs: int,
    speed: float = SPEED,
) -> Figure:
    """Columns of strips, each (start in s, seconds, strips), under a title."""
    widths = [(seconds + LEAD_IN) * speed for _, seconds, _ in columns]
    tallest = max(sum(s.height + _CAPTION for s in strips) for _, _, strips in columns)
    page_w = sum(widths) + _MARGIN * (len(columns) + 1)
    page_h = tallest + 9.0 + 12.0
    figure = style.new_figure(page_w, page_h)
    figure.text(
        _MARGIN / page_w,
        1 - 4.0 / page_h,
        title,
        fontsize=10,
        fontweight="bold",
        va="top",
        ha="left",
    )
    left = _MARGIN
    for (start, seconds, strips), width in zip(columns, widths, strict=True):
        top = page_h - 10.0
        for strip in strips:
            top -= _CAPTION + strip.height
            axes = ecg_paper_axes(
                figure, left, top, seconds, strip.low, strip.high, start=start, gain=strip.gain,
                speed=speed,
            )  # fmt: skip
            time = start + np.arange(strip.signal.size) / fs
            if strip.ghost is not None:
                (ghost,) = axes.plot(time, strip.ghost, color=style.GHOST, linewidth=0.5)
                ghost.set_gid("ghost")
            (trace,) = axes.plot(time, strip.signal, color=strip.colour, linewidth=0.8)
            trace.set_gid("trace")
            axes.set_title(strip.caption, loc="left", fontsize=8, pad=2.5)
            if strip.note:
                axes.set_title(strip.note, loc="right", fontsize=7.5, pad=2.5)
        ticks = np.arange(math.ceil(start), start + seconds + 1e-6)
        axes.set_xticks(ticks, [f"{t:.0f} s" for t in ticks])
        axes.tick_params(length=2, width=0.5, pad=1.5)
        left += width + _MARGIN
    figure.text(_MARGIN / page_w, 2.0 / page_h, foot, fontsize=7, va="bottom", ha="left")
    return figure


def window(length: int, start: float | None, seconds: float, delta: np.ndarray, fs: int) -> slice:
    """Samples that are shown, from ``start`` s or from where ``delta`` is strongest."""
    if start is None:
        start = busiest_start(delta, length, seconds, fs)
    first = min(max(0, round(start * fs)), max(0, length - 1))
    return slice(first, min(length, first + round(seconds * fs)))


def checked_length(x: np.ndarray, delta: np.ndarray, length: int | None) -> int:
    """Own samples of a record; ValueError where ``x`` and ``delta`` do not belong together."""
    if x.ndim != 1 or x.shape != delta.shape:
        raise ValueError(f"one record and its perturbation, not {x.shape} and {delta.shape}")
    length = x.size if length is None else min(int(length), x.size)
    if length < 1:
        raise ValueError("the record is empty")
    return length


def gain_text(gain: float) -> str:
    """A gain for a caption."""
    return f"{gain:g} mm/mV"
