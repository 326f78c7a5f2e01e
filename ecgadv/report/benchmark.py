"""Tables and the figure of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ecgadv.evaluate.benchmark import Compared
from ecgadv.report import style
from ecgadv.report.tables import INTERVALS, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = (
    "method", "success", "95 %", "Wilson 95 %", "median d", "90th pct. d", "median d_l2",
    "ratio to cw", "its 95th pct.", "optimality", "gradients", "seconds", "CPU s", "cases/s",
    "peak RSS, MB",
)  # fmt: skip

CONSOLE = {
    "method": 0, "success": 1, "95 %": 2, "d": 4, "90th": 5, "ratio": 7, "95th": 8, "opt.": 9,
    "grads": 10, "s": 11,
}  # fmt: skip
"""Columns that fit a terminal: short name -> place in :data:`HEAD`."""

SCALING_HEAD = ("metric", "method", "cases", "seconds", "s/case", "peak RSS, MB", "growth, MB")

_MARKERS = "osD^vP*X<>hd"


def number(value: float | None, form: str = ".3g") -> str:
    """A table cell: – where there is nothing, ∞ where a failure counts as infinite."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:{form}}"


def cells(row: Compared) -> list[str]:
    """Cells of a row of :func:`ecgadv.evaluate.benchmark.compare`, under :data:`HEAD`."""
    star = {"imported": " ¹", "resumed": " ²"}.get(row.origin, "")
    return [
        f"{row.method}{star}",
        f"{row.n_success}/{row.n}",
        span(row.ci95_records),
        span(row.ci95),
        number(row.median),
        number(row.p90),
        number(row.median_d_l2),
        number(row.ratio_median, ".3f"),
        number(row.ratio_p95, ".3f"),
        number(row.optimality, ".3f"),
        number(row.gradients, ".0f"),
        number(row.seconds, ".0f" if row.seconds >= 100 else ".3g"),
        number(row.cpu_seconds, ".0f" if (row.cpu_seconds or 0) >= 100 else ".3g"),
        number(row.cases_per_second),
        number(row.peak_mb, ".0f"),
    ]


def scaling_cells(row: Compared) -> list[str]:
    """Cells of a row under :data:`SCALING_HEAD`."""
    return [
        row.metric,
        row.method,
        str(row.n),
        number(row.seconds),
        number(row.seconds / row.n),
        number(row.peak_mb, ".0f"),
        number(row.growth_mb, ".0f"),
    ]


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    align = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(line)} |" for line in (head, align, *body)]


def markdown(
    table: Sequence[Compared],
    scaling: Sequence[Compared],
    *,
    command: str,
    machine: str,
    missing: Mapping[str, str],
) -> str:
    """The benchmark's results as Markdown.

    Args:
        table: see :func:`ecgadv.evaluate.benchmark.compare`.
        scaling: the same figures of one method over growing numbers of cases.
        command: that made them.
        machine: on which they were made.
        missing: methods that could not be measured -> why.
    """
    lines = [f"Made by `{command}` on {machine}.", ""]
    for metric in dict.fromkeys(row.metric for row in table):
        mine = [row for row in table if row.metric == metric]
        lines += [f"### `metric={metric}`, {mine[0].n} cases", ""]
        lines += [*_markdown(HEAD, [cells(row) for row in mine]), ""]
    lines += [f"Of success, {INTERVALS}.", ""]
    if any(row.origin == "imported" for row in table):
        lines += ["¹ Measured in another process; judged here.", ""]
    if any(row.origin == "resumed" for row in table):
        lines += ["² Interrupted and resumed: its seconds hold compiling more than once.", ""]
    if scaling:
        lines += ["### More cases", ""]
        lines += [*_markdown(SCALING_HEAD, [scaling_cells(row) for row in scaling]), ""]
    if missing:
        lines += ["Not measured: " + "; ".join(f"{k} ({v})" for k, v in missing.items()) + ".", ""]
    return "\n".join(lines)


@style.styled
def distance_against_gradients(table: Sequence[Compared]) -> Figure:
    """Median distance against gradients a case, a panel a metric; lower left is better.

    Methods of the same name but for their number of steps are joined by a line. Those that fail in
    half of the cases or more have no median, and are named at the top edge.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    metrics = list(dict.fromkeys(row.metric for row in table))
    families = list(dict.fromkeys(family(row.method) for row in table))
    figure = style.new_figure(30 + 78 * max(1, len(metrics)), 105)
    for k, metric in enumerate(metrics):
        axes = figure.add_subplot(1, len(metrics), k + 1)
        lost = []
        for f, name in enumerate(families):
            mine = [r for r in table if r.metric == metric and family(r.method) == name]
            lost += [r.method for r in mine if not math.isfinite(r.median)]
            mine = [r for r in mine if math.isfinite(r.median) and r.gradients > 0]
            mine.sort(key=lambda r: r.gradients)
            if mine:
                (line,) = axes.plot(
                    [r.gradients for r in mine],
                    [r.median for r in mine],
                    marker=_MARKERS[f % len(_MARKERS)],
                    color=style.SERIES[f % len(style.SERIES)],
                    ms=4.5,
                    linewidth=0.9,
                    label=name,
                )
                line.set_gid(f"{metric} {name}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())
        axes.set_xlabel("gradients a case")
        axes.set_ylabel(f"median d, metric {metric}" if not k else f"metric {metric}")
        axes.set_title(f"no median: {', '.join(lost)}" if lost else "", fontsize=7, loc="left")
        axes.grid(linewidth=0.4, color="#DDDDDD")
        axes.set_axisbelow(True)
        if axes.get_lines():
            axes.legend(frameon=False, fontsize=7)
    figure.subplots_adjust(left=0.09 if len(metrics) > 1 else 0.16, right=0.98, top=0.92,
                           bottom=0.16, wspace=0.26)  # fmt: skip
    return figure


def family(method: str) -> str:
    """A method's name without its number of steps: ``minnorm`` of ``minnorm_100``."""
    head, _, tail = method.rpartition("_")
    return head if head and tail.isdigit() else method
