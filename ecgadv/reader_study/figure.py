"""The figure of a reading study's scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecgadv.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.styled
def scores_figure(scores: Mapping[str, Any]) -> Figure:
    """What readers noticed, by metric: shares with 95 % intervals, and what chance gives.

    Broad bar: bootstrap over readers and recordings; thin line: Wilson's. Line ids: ``share NAME``,
    ``resampled NAME``, ``wilson NAME``, ``chance``.

    Args:
        scores: see :func:`ecgadv.reader_study.scores.score`.
    """
    panels = [
        (kind, words)
        for kind, words in (
            ("detect", "which was altered? right answers"),
            ("closest", "closest to the original: chosen"),
        )
        if kind in scores
    ]
    rows = max(len(scores[kind]) for kind, _ in panels)
    figure = style.new_figure(22 + 78 * len(panels), 26 + 9 * rows)
    for k, (kind, words) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), k + 1)
        names = list(scores[kind])
        for row, metric in enumerate(names):
            mine = scores[kind][metric]
            colour = style.metric_series(metric, row)["color"]
            if mine["ci95_readers_records"][0] is not None:
                (wide,) = axes.plot(
                    mine["ci95_readers_records"], [row, row], color=colour, linewidth=5, alpha=0.3,
                    solid_capstyle="butt",
                )  # fmt: skip
                wide.set_gid(f"resampled {metric}")
            (narrow,) = axes.plot(mine["ci95"], [row, row], color=colour, linewidth=1.2)
            narrow.set_gid(f"wilson {metric}")
            (dot,) = axes.plot([mine["share"]], [row], "o", ms=5, color=colour)
            dot.set_gid(f"share {metric}")
        chance = 0.5 if kind == "detect" else 1 / len(names)
        axes.axvline(chance, color="black", linewidth=0.7, linestyle=":").set_gid("chance")
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_yticks(range(len(names)), [f"{m} ({scores[kind][m]['n']})" for m in names])
        axes.set_title(words, loc="left", fontsize=8, pad=4)
        axes.set_xlabel("share of answers (dotted: chance)")
        axes.grid(axis="x", linewidth=0.4, color=style.GRID)
        axes.set_axisbelow(True)
    figure.subplots_adjust(
        left=0.26 / len(panels), right=0.98, bottom=13 / (26 + 9 * rows), top=0.86, wspace=0.35
    )
    return figure
