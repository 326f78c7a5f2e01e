"""Print the paper's table of 36 cells from a sweep over the three metrics, and draw it.

    python run.py -m experiment=type1_table_cpu data=cinc2017 data.root=training2017.zip
    python tools/paper_table.py multirun_outputs/<the sweep's folder> docs/images/paper_table.png

Each cell: successes of cases, the 95 % interval over recordings and Wilson's, and the median of the
distance that the metric minimises with its quartiles.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ecgadv.records.base import CLASSES
from ecgadv.report import data, style, tables
from ecgadv.tracking.content import run_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = {"l2": "d_l2", "diff": "d_smooth", "diffl2": "d_smooth_l2"}
"""The distance that each metric minimises."""

Cells = dict[str, list[tables.Row]]


def read(sweep: Path) -> Cells:
    """Metric -> a row for each pair of classes and one for all."""
    found: Cells = {}
    for folder in run_folders(sweep):
        finished = (folder / "summary.json").is_file()
        metric = (data.read_config(folder).get("metric") or {}).get("name")
        if finished and metric in OWN:
            found[metric] = tables.rows(data.read_cases(folder))
    if not found:
        raise SystemExit(f"{sweep}: holds no finished job of the three metrics")
    return {metric: found[metric] for metric in OWN if metric in found}


def markdown(cells: Cells) -> str:
    """A line for each pair of classes, a column for each metric."""
    lines = ["| pair | " + " | ".join(f"`{m}`, {OWN[m]}" for m in cells) + " |"]
    lines.append("|---|" + "---:|" * len(cells))
    for rows in zip(*cells.values(), strict=True):
        pair = "all" if rows[0].source == "all" else f"{rows[0].source} to {rows[0].target}"
        words = []
        for metric, row in zip(cells, rows, strict=True):
            size = "–"
            if OWN[metric] in row.quartiles:
                q25, median, q75 = row.quartiles[OWN[metric]]
                size = f"{median:.3g} ({q25:.3g} to {q75:.3g})"
            ends = f"{tables.span(row.by_records)} (Wilson {tables.span(row.interval)})"
            words.append(f"{row.n_success}/{row.n}, {ends}; {size}")
        lines.append(f"| {pair} | " + " | ".join(words) + " |")
    return "\n".join(lines)


@style.styled
def figure(cells: Cells) -> Figure:
    """Median and quartiles of each pair's distance, a panel for each metric."""
    out = style.new_figure(180, 78)
    for k, (metric, rows) in enumerate(cells.items()):
        axes = out.add_axes((0.09 + 0.31 * k, 0.16, 0.27, 0.72))
        pairs = [row for row in rows if row.source != "all"]
        for at, row in enumerate(pairs):
            if OWN[metric] not in row.quartiles:
                continue
            q25, median, q75 = row.quartiles[OWN[metric]]
            colour = style.SERIES[CLASSES.index(row.target)]
            axes.plot([q25, q75], [at, at], color=colour, linewidth=1.2)
            axes.plot([median], [at], color=colour, marker="o", ms=3.5)
        axes.set_xscale("log")
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        names = [f"{row.source} → {row.target}" for row in pairs]
        axes.set_yticks(range(len(pairs)), names if k == 0 else [""] * len(pairs))
        axes.set_xlabel(OWN[metric])
        won, tried = sum(row.n_success for row in pairs), sum(row.n for row in pairs)
        axes.set_title(f"metric {metric}: {won:,} of {tried:,}", fontsize=7.5, loc="left")
        axes.grid(axis="x", linewidth=0.4, color="#DDDDDD")
    return out


def main() -> None:
    """Read the command line, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    cells = read(given.sweep)
    print(markdown(cells))
    print(style.save(figure(cells), given.file, dpi=170))


if __name__ == "__main__":
    main()
