"""Blocks of a report's page: its tables and its tiles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ecgadv.report import data, injected, tables

if TYPE_CHECKING:
    import pandas as pd


def slug(name: str) -> str:
    """A name as an HTML id."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


def _cell(value: Any) -> dict[str, str]:
    """What a cell shows, and what it is sorted by where that differs: both, given as a pair."""
    if isinstance(value, tuple):
        text, key = value
        return {"text": text, "key": repr(float(key))}
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "key": ""}
    if isinstance(value, (int, float)):
        if math.isnan(value):
            return {"text": "", "key": "nan"}
        whole = float(value).is_integer() and abs(value) < 1e9
        return {"text": f"{value:.0f}" if whole else f"{value:.4g}", "key": repr(float(value))}
    return {"text": "" if value is None or value != value else str(value), "key": ""}


def page_table(
    name: str,
    head: Sequence[str],
    body: Sequence[Sequence[Any]],
    *,
    filterable: bool = True,
    note: str = "",
    more_help: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A table for the template; a row whose source is ``all`` is a total and stays below."""
    rows: list[dict[str, Any]] = [{"cells": [_cell(v) for v in row]} for row in body]
    for row in rows:
        row["total"] = any(cell["text"] == "all" for cell in row["cells"][:2])
    filters: list[list[str] | None] = []
    # A column of few different words gets a list to choose from, others a box to type into.
    for k in range(len(head) if filterable else 0):
        words = {row["cells"][k]["text"] for row in rows}
        numeric = any(row["cells"][k]["key"] for row in rows)
        filters.append(sorted(words - {""}) if len(words) <= 8 and not numeric else None)
    helped = data.COLUMN_HELP | dict(more_help or {})
    explained = {column: helped[column] for column in head if column in helped}
    return {
        "name": name,
        "id": slug(name),
        "head": list(head),
        "rows": rows,
        "filters": filters,
        "note": note,
        "help": explained,
    }


def _success_cells(row: tables.Row) -> list[Any]:
    """Cells of a row, sorted by what they say rather than by their letters."""
    source, target, *cells = tables.success_cells(row)
    low = math.nan if row.by_records is None else row.by_records[0]
    keys = (row.n_success, row.n_records, row.rate, low, row.interval[0])
    return [source, target, *zip(cells, keys, strict=True)]


def _distance_cells(row: tables.Row, columns: Sequence[str]) -> list[Any]:
    source, target, *cells = tables.distance_cells(row, columns)
    keys = [row.quartiles.get(column, (math.nan,) * 3)[1] for column in columns]
    return [source, target, *zip(cells, keys, strict=True)]


def result_tables(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Success and distances by pair; by metric first, where the cases come from several."""
    groups = [("", cases)]
    if "metric" in cases and cases["metric"].nunique() > 1:
        groups = [(str(name), mine) for name, mine in cases.groupby("metric", sort=False)]
    lead = ["metric"] if len(groups) > 1 else []
    found = [([name] if lead else [], row) for name, mine in groups for row in tables.rows(mine)]
    success = [[*first, *_success_cells(row)] for first, row in found]
    columns = list(data.distances(cases))
    distances = [[*first, *_distance_cells(row, columns)] for first, row in found]
    heads = [*lead, *tables.distance_head(cases)]
    pooled = "; jobs of the same metric are pooled" if lead else ""
    return [
        page_table("success", [*lead, *tables.SUCCESS_HEAD], success, filterable=bool(lead),
               note="; ".join([tables.INTERVALS + pooled, *tables.skipped_words(cases)])),
        page_table("distances", heads, distances, filterable=bool(lead),
               note="median (25 % – 75 %) over the successful cases, standardised units" + pooled),
    ]  # fmt: skip


def job_head(columns: Iterable[str]) -> list[str]:
    """Heads of :func:`job_cells`, for these distances."""
    head = ["cases", "skipped", "success %", "95 %", "Wilson 95 %"]
    return head + [f"{column} median" for column in columns]


def job_cells(cases: pd.DataFrame, columns: Sequence[str]) -> list[Any]:
    """Cells of a job under :func:`job_head`."""
    skipped = int(cases["status"].eq("skipped").sum())
    if not len(data.attempted(cases)):
        return [0, skipped, *[None] * (3 + len(columns))]
    total = tables.total(cases)
    medians = [total.quartiles.get(c, (None,) * 3)[1] for c in columns]
    intervals = [tables.span(total.by_records), tables.span(total.interval)]
    return [total.n, skipped, 100 * total.rate, *intervals, *medians]


def injected_table(rates: Sequence[injected.Rate]) -> list[dict[str, Any]]:
    """Rates of a Type II run on the signals' own recordings and on others; [] of other runs."""
    if not rates:
        return []
    body = [injected.keyed_cells(row) for row in rates]
    return [page_table("at random onsets", injected.HEAD, body, note=injected.NOTE)]


def injected_jobs(jobs: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The same of the Type II jobs of a sweep, a line a job; [] where there is no such job."""
    head = ["overrides", "tried on", "records", "readings", "target %", "95 %", "Wilson 95 %"]
    rows = [[name, *cells] for name, told in jobs for cells in injected.in_brief(told)]
    if not rows:
        return []
    return [page_table("at random onsets", head, rows, note=injected.NOTE)]


def facts(
    summary: dict[str, Any], cases: pd.DataFrame, rates: Sequence[injected.Rate] = ()
) -> list[tuple[str, str]]:
    """Tiles of a page: label and value.

    Args:
        summary: of the run; {} of a sweep.
        cases: rows of ``cases.csv``.
        rates: of injected signals.
    """
    tried = data.attempted(cases)
    found = [("cases", str(len(tried)))]
    if len(tried):
        total = tables.total(cases)
        found.append(("success", f"{total.n_success} of {total.n} ({100 * total.rate:.1f} %)"))
        over = f"{tables.span(total.by_records)} over {total.n_records} recordings"
        found.append(("95 % interval", over))
        found.append(("Wilson's interval", f"{tables.span(total.interval)} over {total.n} cases"))
    found += injected.facts(rates)
    count = int((cases["status"] == "failed").sum())
    found += [("failed", str(count))] if count else []
    found += [("skipped", words.replace(" skipped", "")) for words in tables.skipped_words(cases)]
    for key, label in (
        ("gradients_per_case", "gradients a case"),
        ("cases_per_second", "cases a second"),
        ("seconds", "seconds"),
    ):
        value = summary.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            found.append((label, f"{value:.3g}" if key != "seconds" else f"{value:.1f}"))
    victim = summary.get("victim")
    if isinstance(victim, dict):
        found.append(("victim", str(victim.get("name", ""))))
    return found
