"""Result tables, for the terminal (rich), for Markdown and for HTML, from the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ecgadv.report.data import attempted, class_order, distances, succeeded

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One pair of classes, or all together.

    Attributes:
        source: class letter, ``any`` of several classes together, ``all`` in the last row.
        target: class letter, ``any``, or "" in the last row.
        n: cases attempted.
        n_success: of them successful.
        n_records: recordings that they are of.
        by_records: 95 % interval of the rate, a bootstrap over recordings; None with too few.
        interval: Wilson's, which takes cases for independent.
        quartiles: distance -> (25 %, median, 75 %) over the successful cases.
    """

    source: str
    target: str
    n: int
    n_success: int
    n_records: int
    by_records: tuple[float, float] | None
    interval: tuple[float, float]
    quartiles: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Share of the attempted cases that succeeded."""
        return self.n_success / self.n


def _row(source: str, target: str, tried: pd.DataFrame) -> Row:
    from ecgadv.evaluate.statistics import record_interval, wilson

    won = tried[succeeded(tried)]
    quartiles = {}
    for column in distances(tried):
        values = won[column].dropna().to_numpy(float) if column in won else np.zeros(0)
        if values.size:
            q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
            quartiles[column] = (float(q25), float(median), float(q75))
    names = record_names(tried)
    return Row(
        source, target, len(tried), len(won), len(set(names)),
        record_interval(succeeded(tried).to_numpy(float), np.ones(len(tried)), names),
        wilson(len(won), len(tried)), quartiles,
    )  # fmt: skip


NOT_READ = "the deployment does not read them as their source"
"""Why a case was skipped whose row names a pair of classes and no reason."""

MOST_REASONS = 3
"""Reasons for skipping that are told apart."""


def skipped_words(cases: pd.DataFrame) -> list[str]:
    """``3 skipped: why``, a line a reason, most frequent first; [] where nothing was."""
    lost = cases[cases["status"].eq("skipped")]
    if not len(lost):
        return []
    # A row that names a pair is a case that could not be one; else its record was not usable.
    paired = lost["source"].fillna("").ne("") & lost["target"].fillna("").ne("")
    usual = paired.map({True: NOT_READ, False: "not usable"})
    said = lost["message"].fillna("").astype(str) if "message" in lost else usual
    # What each was read as, and how often, stands in its row.
    said = said.where(~said.str.startswith("it is read as "), NOT_READ)
    counts = said.where(said.ne(""), usual).value_counts()
    words = [f"{count} skipped: {reason}" for reason, count in counts.items()]
    rest = int(counts.iloc[MOST_REASONS:].sum())
    return words[:MOST_REASONS] + ([f"{rest} skipped: other reasons"] if rest else [])


def rows(cases: pd.DataFrame) -> list[Row]:
    """A row for each pair of classes that was attempted, in class order, and one for all.

    Args:
        cases: rows of ``cases.csv``; skipped ones do not count.
    """
    tried = attempted(cases)
    found = []
    order = [*class_order(tried), "any"]
    for source in order:
        for target in order:
            mine = tried[(tried["source"] == source) & (tried["target"] == target)]
            if len(mine):
                found.append(_row(source, target, mine))
    if len(tried):
        found.append(total(tried))
    return found


def record_names(cases: pd.DataFrame) -> list[str]:
    """The recording of each case; of a table without such a column, each case's own id."""
    column = "record" if "record" in cases else "case_id"
    return [str(name) for name in cases[column]]


def span(interval: tuple[float, float] | None) -> str:
    """``67.6–100.0 %``; – where there is none."""
    return "–" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f} %"


INTERVALS = (
    "95 %: bootstrap over recordings, – below three; Wilson's takes the cases for independent"
)
"""What the two intervals of a table are."""


def total(cases: pd.DataFrame) -> Row:
    """All attempted cases together; there is at least one."""
    return _row("all", "", attempted(cases))


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _short(value: float) -> str:
    """Three digits, without an exponent where it can be avoided."""
    return f"{value:.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"


def success_cells(row: Row) -> list[str]:
    """Source, target, successes of cases, recordings, rate, both intervals."""
    return [
        row.source,
        row.target,
        f"{row.n_success}/{row.n}",
        str(row.n_records),
        _percent(row.rate),
        span(row.by_records),
        span(row.interval),
    ]


def distance_cells(row: Row, columns: Iterable[str]) -> list[str]:
    """Source, target, and median (25 % – 75 %) of each distance."""
    cells = [row.source, row.target]
    for column in columns:
        if column in row.quartiles:
            q25, median, q75 = row.quartiles[column]
            cells.append(f"{_short(median)} ({_short(q25)} – {_short(q75)})")
        else:
            cells.append("–")
    return cells


SUCCESS_HEAD = ["source", "target", "success", "records", "rate", "95 %", "Wilson 95 %"]


def distance_head(cases: pd.DataFrame) -> list[str]:
    """Heads of :func:`distance_cells`."""
    return ["source", "target", *(own.label for own in distances(cases).values())]


def _rich(title: str, head: list[str], found: list[Row], body: list[list[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, justify="left" if name in ("source", "target", "pair") else "right")
    for row, cells in zip(found, body, strict=True):
        if row.source == "all":
            table.add_section()
        # Text, not markup: a bracket in a name is a bracket.
        table.add_row(*(Text(cell) for cell in cells))
    return table


def success_table(cases: pd.DataFrame) -> Table:
    """Success of every source and target class with its 95 % intervals, for the terminal.

    The first is a bootstrap over recordings, the second Wilson's. What was skipped stands below.
    """
    found = rows(cases)
    table = _rich("success", SUCCESS_HEAD, found, [success_cells(r) for r in found])
    table.caption, table.caption_justify = "; ".join(skipped_words(cases)) or None, "left"
    return table


def distances_table(cases: pd.DataFrame) -> Table:
    """Median and quartiles of each distance over the successful cases, for the terminal."""
    found = rows(cases)
    title = "distances of the successful cases: median (25 % – 75 %), standardised units"
    # One column for the pair and tight ranges: the table fits a terminal of 80 columns.
    body, columns = [], list(distances(cases))
    for row in found:
        source, target, *cells = distance_cells(row, columns)
        pair = f"{source} → {target}" if target else source
        body.append([pair, *(cell.replace(" – ", "–") for cell in cells)])
    return _rich(title, ["pair", *columns], found, body)


def _markdown(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "|".join("---" if h in ("source", "target") else "---:" for h in head) + "|")
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in body]
    return "\n".join(lines)


def success_markdown(cases: pd.DataFrame) -> str:
    """The table of :func:`success_table` in Markdown."""
    return _markdown(SUCCESS_HEAD, [success_cells(r) for r in rows(cases)])


def distances_markdown(cases: pd.DataFrame) -> str:
    """The table of :func:`distances_table` in Markdown."""
    columns = list(distances(cases))
    return _markdown(distance_head(cases), [distance_cells(r, columns) for r in rows(cases)])
