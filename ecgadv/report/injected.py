"""The result where the onset is random: rates on own and, of injected signals, on other recordings.

``evaluation.csv`` has a row for each signal and recording that it was tried on. Onsets at which the
unperturbed recording is not read as its source count nowhere (``n_clean``, ``n_success``); runs of
earlier versions have neither column, and all their onsets count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgadv.records.base import CLASSES
from ecgadv.report import style
from ecgadv.report.tables import span
from ecgadv.report.type2 import KINDS, read_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.table import Table

TILES = {"same_record": "on its own recording", "other_records": "on other recordings",
         "other_classes": "on other classes"}  # fmt: skip

HEAD = ["tried on", "source", "target", "signals", "records", "hits", "rate", "95 %", "Wilson 95 %"]

NOTE = (
    "own recording: shift-robustness; others: universality. Readings at random onsets at which the "
    "unperturbed recording is read as its source; 95 %: bootstrap over recordings and signals, "
    "– below three recordings; Wilson's takes readings for independent"
)


@dataclass(frozen=True)
class Rate:
    """Readings of one kind of recording, and of one pair of classes or all together.

    Attributes:
        kind: ``same_record``, ``other_records`` or ``other_classes``.
        source: class of the recordings, ``all`` of all together.
        target: class wanted, "" of all together.
        n_signals: signals.
        n_records: recordings with at least one reading that counts.
        n_hits: readings that reach the target.
        n_trials: readings that count.
        by_records: 95 % interval, a bootstrap over recordings and signals; None with too few.
        interval: Wilson's over readings.
    """

    kind: str
    source: str
    target: str
    n_signals: int
    n_records: int
    n_hits: int
    n_trials: int
    by_records: tuple[float, float] | None
    interval: tuple[float, float]

    @property
    def rate(self) -> float | None:
        """Share of the readings; None without one."""
        return self.n_hits / self.n_trials if self.n_trials else None


def read_evaluation(folder: Path) -> pd.DataFrame | None:
    """Rows of a run's ``evaluation.csv`` with ``kind``, ``hits`` and ``trials``; None without one.

    A run of edited recordings that was judged again has the file too, without onsets: also None.
    """
    table = read_table(folder / "evaluation.csv")
    if table is None or not {"perturbation_case", "n_shifts", "success_rate"} <= set(table):
        return None
    same = table["same_record"].astype(str).str.lower().eq("true")
    if table["n_shifts"].eq(1).all() and same.all():
        return None
    if {"n_clean", "n_success"} <= set(table):
        trials, hits = table["n_clean"].astype(int), table["n_success"].astype(int)
    else:
        trials = table["n_shifts"].astype(int)
        hits = (table["success_rate"].astype(float) * trials).round().astype(int)
    made = table["made_from"] if "made_from" in table else table["source"]
    kin = made.eq(table["source"]) | made.eq("any")
    kind = kin.map({True: "other_records", False: "other_classes"}).where(~same, "same_record")
    return table.assign(kind=kind, hits=hits, trials=trials)


def _rate(kind: str, source: str, target: str, rows: pd.DataFrame) -> Rate:
    from ecgadv.evaluate.statistics import record_interval, wilson

    signals = [str(name) for name in rows["perturbation_case"]]
    records = [str(name) for name in rows["victim_record"]]
    hits, trials = rows["hits"].to_numpy(), rows["trials"].to_numpy()
    counted = rows[rows["trials"] > 0]
    return Rate(
        kind, source, target, len(set(signals)), counted["victim_record"].astype(str).nunique(),
        int(hits.sum()), int(trials.sum()),
        # On the recording that it was made from, a signal and its recording are one unit.
        record_interval(hits, trials, records, None if kind == "same_record" else signals),
        wilson(int(hits.sum()), int(trials.sum())),
    )  # fmt: skip


def rates(evaluation: pd.DataFrame) -> list[Rate]:
    """Each kind of recording: a row for each pair of classes in class order, then all together.

    Args:
        evaluation: see :func:`read_evaluation`; tables of several runs may be put together.
    """
    order = {name: k for k, name in enumerate([*CLASSES, "any"])}
    found = []
    for kind in KINDS:
        mine = evaluation[evaluation["kind"] == kind]
        pairs = sorted(
            set(zip(mine["source"], mine["target"], strict=True)),
            key=lambda pair: [(order.get(name, len(order)), str(name)) for name in pair],
        )
        for source, target in pairs:
            here = mine["source"].eq(source) & mine["target"].eq(target)
            found.append(_rate(kind, str(source), str(target), mine[here]))
        if len(mine):
            found.append(_rate(kind, "all", "", mine))
    return found


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %"


def cells(row: Rate) -> list[str]:
    """Cells under :data:`HEAD`."""
    return [
        TILES[row.kind], row.source, row.target, str(row.n_signals), str(row.n_records),
        f"{row.n_hits}/{row.n_trials}", _percent(row.rate), span(row.by_records),
        span(row.interval),
    ]  # fmt: skip


def keyed_cells(row: Rate) -> list[Any]:
    """:func:`cells`, those of numbers with what they are sorted by."""
    text = cells(row)
    rate = float("nan") if row.rate is None else row.rate
    low = float("nan") if row.by_records is None else row.by_records[0]
    keys = [row.n_signals, row.n_records, row.n_hits, rate, low, row.interval[0]]
    return [*text[:3], *zip(text[3:], keys, strict=True)]


def facts(found: Sequence[Rate]) -> list[tuple[str, str]]:
    """A tile for each kind of recording: rate, readings, interval."""
    tiles = []
    for row in found:
        if row.source == "all":
            counted = f"{row.n_hits} of {row.n_trials} readings, {row.n_records} recordings"
            words = f"{_percent(row.rate)} ({span(row.by_records)}); {counted}"
            tiles.append((f"target reached {TILES[row.kind]}", words))
    return tiles


def console_table(found: Sequence[Rate]) -> Table:
    """The rates for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="at random onsets: readings that reach the target", title_justify="left",
        box=box.SIMPLE,
    )  # fmt: skip
    shown = {"tried on": 0, "pair": 1, "records": 4, "hits": 5, "rate": 6, "95 %": 7, "Wilson": 8}
    for k, name in enumerate(shown):
        table.add_column(name, justify="left" if k < 2 else "right")
    for row in found:
        text = cells(row)
        text[1] = f"{row.source} → {row.target}" if row.target else row.source
        table.add_row(*(Text(text[place]) for place in shown.values()))
    return table


@style.styled
def figure(found: Sequence[Rate]) -> Figure:
    """Rates of each pair and kind of recording with the interval over recordings.

    Returns:
        Points have ``kind source>target`` as their id, intervals ``interval`` and that.
    """
    names = list(dict.fromkeys((row.source, row.target) for row in found))
    names.sort(key=lambda pair: pair[0] == "all")
    kinds = list(dict.fromkeys(row.kind for row in found))
    out = style.new_figure(130, 30 + 7 * len(names))
    tall = 30 + 7 * len(names)
    axes = out.add_axes((0.16, 14 / tall, 0.81, (tall - 28) / tall))
    for row in found:
        if row.rate is None:
            continue
        step = kinds.index(row.kind) - (len(kinds) - 1) / 2
        at = names.index((row.source, row.target)) + 0.2 * step
        words, colour = KINDS[row.kind]
        mark = f"{row.kind} {row.source}>{row.target}"
        if row.by_records is not None:
            (line,) = axes.plot(row.by_records, [at, at], color=colour, linewidth=1.2)
            line.set_gid(f"interval {mark}")
        (point,) = axes.plot(
            [row.rate], [at], "o", ms=3.5, color=colour,
            label=words if row.source == "all" else None,
        )  # fmt: skip
        point.set_gid(mark)
    axes.set_yticks(range(len(names)), [f"{a} → {b}" if b else a for a, b in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("readings that reach the target (lines: 95 % over recordings)")
    axes.grid(axis="x", linewidth=0.4, color=style.GRID)
    out.legend(loc="upper center", ncols=len(kinds), frameon=False, fontsize=7)
    return out


def write_figure(folder: Path) -> list[Path]:
    """Draw a run's rates to ``figures/injected_rates.png``; [] for other runs."""
    evaluation = read_evaluation(folder)
    if evaluation is None:
        return []
    drawn = figure(rates(evaluation))
    return [style.save_figure(drawn, folder / "figures" / "injected_rates.png")]


def in_brief(evaluation: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of a sweep's table from the ``evaluation`` of a job's ``summary.json``.

    Returns:
        Words, recordings, readings, rate in percent, interval over recordings and Wilson's.
    """
    rows = []
    for kind, (words, _) in KINDS.items():
        if kind in evaluation:
            total = evaluation[kind]["all"]
            rate = total["success_rate"]
            rows.append([
                words, total["n_records"], total["n_trials"],
                None if rate is None else 100 * rate, span(total.get("ci95_records")),
                span(total.get("ci95_trials")),
            ])  # fmt: skip
    return rows
