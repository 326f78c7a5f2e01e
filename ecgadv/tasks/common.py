"""What several tasks need: records, victim and predictions as a configuration names them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.defences import defend
from ecgadv.errors import DataError, VictimError
from ecgadv.evaluate.predictions import (
    FREQUENCIES,
    PREDICTIONS,
    Predictions,
    class_frequencies,
    doubts,
    predict,
    table_rows,
)
from ecgadv.evaluate.tables import Row
from ecgadv.making import TARGET, instantiate
from ecgadv.records import cache
from ecgadv.records.base import RecordSet
from ecgadv.records.intake import longer_than
from ecgadv.records.opening import open_source
from ecgadv.report.progress import Progress
from ecgadv.store import write_csv
from ecgadv.victims.declared import Reading, declared
from ecgadv.victims.loading import Victim, load_victim

_told: set[str] = set()
"""Caches that cannot be written, as far as that was said."""


def say(message: str) -> None:
    """One line for the person at the terminal; standard error, as results go to standard output."""
    print(message, file=sys.stderr, flush=True)


def use_caches(cfg: Mapping[str, Any]) -> None:
    """Point the caches to ``paths.data`` where that is set."""
    if cfg["paths"].get("data"):
        os.environ["ECGADV_CACHE"] = str(cfg["paths"]["data"])
    place = str(cache.cache_root())
    if place not in _told and not cache.is_writable():
        _told.add(place)
        say(f"note: nothing can be kept in the cache {place}: no permission to write there")


def open_records(cfg: Mapping[str, Any]) -> RecordSet:
    """The data source as the victim reads it, with a note of what it had to leave out."""
    use_caches(cfg)
    name = cfg["data"].get("name", cfg["data"]["_target_"])
    reading = declared(cfg["victim"]) if cfg.get("task") != "train" else Reading()
    records = open_source(cfg["data"], instantiate, reading.fs, reading.classes)
    if not len(records):
        raise DataError(f"data={name}: no usable record")
    _note_skipped(list(records.skipped.items()))
    for note in records.notes:
        say(f"note: {note}")
    return records


def _note_skipped(gone: Sequence[tuple[str, str]], shown: int = 5) -> None:
    for record, reason in gone[:shown]:
        say(f"note: record {record} skipped: {reason}")
    if len(gone) > shown:
        say(f"note: … and {len(gone) - shown} more records skipped (see cases.csv)")


def unusable_records(
    records: RecordSet, predictions: Predictions, n: int
) -> list[tuple[str, str, str]]:
    """(name, label, reason) of records whose first n samples cannot be classified; noted, too."""
    gone = []
    for i in np.flatnonzero(~np.isfinite(predictions.logits).all(axis=1)):
        reason = records.unusable(int(i), n) or "the victim's outputs on it are not finite"
        gone.append((records.ids[i], str(records.labels[i]), reason))
    _note_skipped([(name, reason) for name, _, reason in gone])
    return gone


def open_victim(cfg: Mapping[str, Any], records: RecordSet | None = None) -> Victim:
    """The victim, checked.

    Raises:
        VictimError: it reads another number of leads than the records have, or cannot be used.
    """
    victim = load_victim(instantiate(cfg["victim"]))
    node = cfg["defence"]
    options = {key: value for key, value in node.items() if key != "name"}
    name = str(node.get("name") or str(node[TARGET]).rpartition(".")[2])
    victim = defend(victim, instantiate(node), name, options)
    for note in victim.notes:
        say(f"note: victim {victim.name}: {note}")
    reading = declared(cfg["victim"])
    for key in ("fs", "classes"):
        own, said = getattr(victim, key), getattr(reading, key)
        if own != said:
            shown = f"[{','.join(own)}]" if key == "classes" else own
            raise VictimError(f"victim {victim.name}: say victim.{key}={shown}, as the model does")
    if records is not None and records.leads != victim.leads:
        raise VictimError(
            f"victim {victim.name} reads {victim.leads} lead(s), the records of "
            f"data={records.name} have {records.leads}"
        )
    long = longer_than(records, victim.n, "start" in cfg["data"]) if records is not None else ""
    if long:
        say(f"note: {long}")
    if cfg["threat_model"] == "type2" and cfg["task"] != "benchmark":
        only_standardised(victim)
    return victim


def only_standardised(victim: Victim) -> None:
    """Refuse a victim that does not standardise: the power of an injected signal has no unit."""
    if victim.over == "none":
        raise VictimError(
            f"victim {victim.name}: threat_model=type2 takes victims that standardise, not "
            "victim.standardise=none"
        )


def predict_all(
    cfg: Mapping[str, Any], victim: Victim, records: RecordSet, folder: Path
) -> tuple[Predictions, list[Row]]:
    """Classify every record, write ``predictions.csv`` and ``class_frequencies.csv``."""
    if cfg["selection"]["split"] == "heldout" and not victim.card.get("data"):
        say(
            f"note: nothing says what victim {victim.name} was trained on (no card beside its "
            "file): selection.split=heldout keeps every record"
        )
    with Progress(f"classifying {records.name}", len(records)) as progress:
        predictions = predict(victim, records, tick=lambda done, _: progress.update(done))
    for doubt in doubts(victim, records, predictions):
        say(f"note: victim {victim.name}: {doubt}")
    write_csv(folder / "predictions.csv", table_rows(victim, records, predictions), PREDICTIONS)
    frequencies = class_frequencies(victim, records, predictions)
    write_csv(folder / "class_frequencies.csv", frequencies, FREQUENCIES)
    return predictions, frequencies


def show_frequencies(rows: list[Row], data: str, victim: str) -> None:
    """Print how many records of each class the victim gets right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{victim} on {data}: records classified correctly")
    for column in ("class", "records", "correct", "share", "held out", "correct", "share"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [str(row["class"])]
        for total, right in (("records", "correct"), ("heldout_records", "heldout_correct")):
            n, k = row[total], row[right]
            cells += [str(n), str(k), f"{k / n:.1%}" if n else "–"]
        table.add_row(*cells)
    Console().print(table)


def show_results(folder: Path) -> None:
    """Print the tables of a finished run and where it lies."""
    from rich.console import Console

    from ecgadv.report import injected
    from ecgadv.report.data import read_cases
    from ecgadv.report.tables import distances_table, success_table

    console = Console()
    cases = read_cases(folder)
    tried = injected.read_evaluation(folder)
    if tried is not None:
        console.print(injected.console_table(injected.rates(tried)))
    console.print(success_table(cases))
    console.print(distances_table(cases))
    print(f"results: {folder}")
