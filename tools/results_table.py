"""Print the README's table of results from folders of runs and sweeps.

python tools/results_table.py outputs multirun_outputs

Every ``summary.json`` below the folders gives one row, runs of the same data, attack and metric in
order of their number of cases.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ecgadv.report import data, tables

COLUMNS = (
    "data", "attack", "metric", "success", "records", "95 % over records", "Wilson 95 %", "d_l2",
    "d_smooth", "SNR, dB", "gradients a case",
)  # fmt: skip


def intervals(summary: dict[str, Any], folder: Path) -> list[str]:
    """Recordings, the 95 % interval over them and Wilson's over cases.

    Runs of earlier versions have only the latter in their summary; the first is then made from
    their cases.
    """
    count, over = summary.get("n_records"), summary.get("ci95_records")
    if "ci95_records" not in summary and (folder / "cases.csv").is_file():
        total = tables.total(data.read_cases(folder))
        count, over = total.n_records, total.by_records
    return ["–" if count is None else str(count), tables.span(over), tables.span(summary["ci95"])]


def row(summary: dict[str, Any], split: str, folder: Path) -> list[str]:
    """The cells of one run; distances are medians with quartiles."""

    def spread(name: str) -> str:
        values = summary["distances"][name]
        return f"{values['median']:.3g} ({values['q25']:.3g} to {values['q75']:.3g})"

    part = "" if split == "all" else f", {split}"
    return [
        f"{summary['data']['name']}{part}",
        summary["attack"],
        summary["metric"],
        f"{summary['n_success']}/{summary['n_cases']}",
        *intervals(summary, folder),
        spread("d_l2"),
        spread("d_smooth"),
        f"{summary['distances']['snr_db']['median']:.1f}",
        f"{summary['gradients_per_case']:,.0f}",
    ]


def main() -> None:
    """Read the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders to search for runs")
    rows = []
    for folder in parser.parse_args().folders:
        for file in folder.rglob("summary.json"):
            if not file.with_name("plan.json").is_file():
                continue  # MLflow's copy of a run
            summary = json.loads(file.read_text())
            if summary.get("attack") is None or not summary["n_success"]:
                continue
            config = json.loads((file.parent / "config.json").read_text())
            order = (
                summary["data"]["name"] != "synthetic",
                summary["attack"] != "minnorm",
                summary["n_cases"],
                ("l2", "diff", "diffl2").index(summary["metric"]),
            )
            rows.append((order, row(summary, config["selection"]["split"], file.parent)))
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for _, cells in sorted(rows):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
