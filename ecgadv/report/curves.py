"""The figure of robustness curves: success rate against budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ecgadv.evaluate.curves import ALL, Curve
from ecgadv.records.base import CLASSES
from ecgadv.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def robustness_figure(curves: Mapping[str, Curve], distance: str, title: str = "") -> Figure:
    """Curves of all cases with their band, and below it those of every pair, a panel a source.

    Args:
        curves: see :func:`ecgadv.evaluate.curves.pair_curves`.
        distance: on the abscissa, as it is written.
        title: e.g. the metric.

    Returns:
        Lines have the pair as their id, bands ``band`` and the pair.
    """
    named = [pair.partition(">")[0] for pair in curves if ">" in pair]
    known = [c for c in CLASSES if c in named]
    sources = [*known, *dict.fromkeys(c for c in named if c not in known)]
    columns = 2
    lines = -(-len(sources) // columns)
    figure = style.new_figure(170, 62 + 48 * lines)
    grid = figure.add_gridspec(
        1 + lines, columns, hspace=0.42, wspace=0.08, left=0.09, right=0.98, bottom=0.09, top=0.93
    )
    ends = _ends(curves)
    axes = figure.add_subplot(grid[0, :])
    if ALL in curves:
        _draw(axes, ALL, curves[ALL], ends, 0)
    _finish(axes, ends, f"all {curves[ALL].n if ALL in curves else 0} cases")
    for number, source in enumerate(sources):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        mine = {pair: curve for pair, curve in curves.items() if pair.startswith(f"{source}>")}
        for rank, (pair, curve) in enumerate(mine.items()):
            _draw(axes, pair, curve, ends, rank + 1)
        _finish(axes, ends, f"from {source}")
        axes.legend(frameon=False, fontsize=7, loc="upper left", handlelength=3.2)
        if number % columns:
            axes.set_yticklabels([])
            axes.set_ylabel("")
    for axes in figure.axes[-columns:] if sources else figure.axes:
        axes.set_xlabel(f"budget: {distance}")
    heading = title or "success within a budget"
    figure.suptitle(f"{heading} (band: 95 % over records, pointwise)", fontsize=9)
    return figure


@style.styled
def robustness_by_metric(curves: Mapping[str, Curve], labels: Mapping[str, str]) -> Figure:
    """Success within a budget under each metric, a panel a metric: budgets are its own distance.

    Args:
        curves: metric -> curve of all its cases.
        labels: metric -> the distance that it makes small, as it is written.

    Returns:
        Lines have the metric as their id, bands ``band`` and the metric.
    """
    figure = style.new_figure(24 + 52 * len(curves), 62)
    for k, (metric, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), k + 1)
        ends = _ends({metric: curve})
        _draw(axes, metric, curve, ends, style.metric_rank(metric, k))
        _finish(axes, ends, f"{metric}: {curve.n} cases")
        axes.set_xlabel(f"budget: {labels[metric]}")
        if k:
            axes.set_yticklabels([])
            axes.set_ylabel("")
    figure.suptitle("success within a budget (band: 95 % over records, pointwise)", fontsize=9)
    left = 17 / (24 + 52 * len(curves))  # mm for the label and the ticks
    figure.subplots_adjust(left=left, right=0.98, bottom=0.2, top=0.8)
    return figure


def _ends(curves: Mapping[str, Curve]) -> tuple[float, float]:
    values = np.concatenate([c.budget for c in curves.values()] or [np.zeros(0)])
    values = values[values > 0]
    if not values.size:
        return 0.1, 10.0
    return float(values.min()) / 1.5, float(values.max()) * 1.5


def _draw(
    axes: Axes,
    pair: str,
    curve: Curve,
    ends: tuple[float, float],
    rank: int,
) -> None:
    if not curve.n:
        return
    # From rate 0 at the left edge to the last rate at the right one.
    first_low, first_high = 0.0, curve.zero
    budget = np.concatenate([[ends[0]], curve.budget, [ends[1]]])

    def stretched(values: np.ndarray, first: float) -> np.ndarray:
        last = values[-1] if len(values) else first
        return np.concatenate([[first], values, [last]])

    # Too few records to say anything of others: no band.
    if np.isfinite(curve.zero):
        axes.fill_between(
            budget,
            stretched(curve.low, first_low),
            stretched(curve.high, first_high),
            step="post",
            color=style.series(rank)["color"],
            alpha=0.14,
            linewidth=0,
        ).set_gid(f"band {pair}")
    (line,) = axes.step(
        budget,
        stretched(curve.rate, 0.0),
        where="post",
        linewidth=1.1,
        label=f"{pair.replace('>', ' → ')} ({curve.n})",
        **style.series(rank),
    )
    line.set_gid(pair)


def _finish(axes: Axes, ends: tuple[float, float], title: str) -> None:
    style.log_axis(axes, *ends)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel("success")
    axes.set_title(title, loc="left", fontsize=8, pad=3)
    axes.grid(linewidth=0.4, color=style.GRID)
    axes.set_axisbelow(True)
