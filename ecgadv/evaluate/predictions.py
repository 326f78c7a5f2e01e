"""What the victim says of every record of a data source."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgadv.evaluate.verification import softmax
from ecgadv.records import cache
from ecgadv.records.base import RecordSet
from ecgadv.victims.loading import Victim

KEEP_EVERY = 20.0
"""Seconds between two writes of what is classified so far: a deep victim takes many minutes."""


@dataclass(frozen=True)
class Predictions:
    """A row per record of a set, in record order.

    Attributes:
        logits: (R, C) float32; NaN rows where the record could not be used.
        correct: (R,) bool.
        split: (R,) ``train`` or ``heldout``.
    """

    logits: np.ndarray
    correct: np.ndarray
    split: np.ndarray


def predict(
    victim: Victim,
    records: RecordSet,
    *,
    block: int = 256,
    tick: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Classify all records; kept in the cache under the digests of victim and data.

    What is classified is kept as it goes, so a killed run goes on from there.

    Args:
        victim: the classifier.
        records: R records.
        block: records read at once.
        tick: called as tick(records done, R).
    """
    logits = _cached(victim, records)
    if logits is None:
        logits = _cached(victim, records, unfinished=True)
        if logits is None:
            logits = np.full((len(records), len(victim.classes)), np.nan, dtype=np.float32)
        kept = time.monotonic()
        for start in range(0, len(records), block):
            end = min(start + block, len(records))
            # Whole blocks are done again or not at all: batches are those of an unbroken run.
            done = np.isfinite(logits[start:end]).any()
            rows = [i for i in range(start, end) if not done and not records.unusable(i, victim.n)]
            if rows:
                batch = records.batch(rows, victim.n, victim.over)
                logits[rows] = victim.pipeline(batch.x, batch.lengths)
                if time.monotonic() - kept > KEEP_EVERY:
                    _keep(victim, records, logits, unfinished=True)
                    kept = time.monotonic()
            if tick:
                tick(end, len(records))
        _keep(victim, records, logits)
    usable = np.isfinite(logits).all(1)
    predicted = np.where(usable, np.nan_to_num(logits).argmax(1), -1)
    truth = np.array(
        [victim.classes.index(c) if c in victim.classes else -2 for c in records.labels]
    )
    return Predictions(logits, predicted == truth, victim.split_of(records.name, records.ids))


def _file(victim: Victim, records: RecordSet, unfinished: bool = False) -> Path | None:
    if not victim.sha256 or not records.digest:
        return None
    key = f"{victim.sha256[:16]}-{records.digest[:16]}{'-unfinished' if unfinished else ''}"
    return cache.cache_root() / f"predictions-{key}.npy"


def _cached(victim: Victim, records: RecordSet, unfinished: bool = False) -> np.ndarray | None:
    file = _file(victim, records, unfinished)
    if file is None:
        return None
    for place in cache.entries(file):
        try:
            logits = np.load(place, allow_pickle=False)
        except (OSError, EOFError, ValueError):
            continue
        if logits.shape == (len(records), len(victim.classes)):
            return np.asarray(logits)
    return None


def _keep(victim: Victim, records: RecordSet, logits: np.ndarray, unfinished: bool = False) -> None:
    file, beginning = _file(victim, records, unfinished), _file(victim, records, unfinished=True)
    if file is None or beginning is None:
        return
    for place in cache.entries(file):
        scratch = place.with_name(f".{place.stem}-{os.getpid()}.npy")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(scratch, logits, allow_pickle=False)
            os.replace(scratch, place)
            break
        except OSError as error:
            # A cache that cannot be written costs time, never a result.
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
            if not isinstance(error, PermissionError):
                break
    if not unfinished:
        for place in cache.entries(beginning):
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)


def table_rows(
    victim: Victim, records: RecordSet, predictions: Predictions
) -> list[dict[str, object]]:
    """Rows of ``predictions.csv``; a record that could not be used has an empty prediction."""
    rows: list[dict[str, object]] = []
    probability = softmax(np.nan_to_num(predictions.logits))
    for i, record in enumerate(records.ids):
        known = bool(np.isfinite(predictions.logits[i]).all())
        best = int(probability[i].argmax())
        rows.append(
            {
                "record": record,
                "label": str(records.labels[i]),
                "predicted": victim.classes[best] if known else "",
                "p_predicted": f"{probability[i, best]:.6g}" if known else "",
                "seconds_long": f"{records.lengths[i] / records.fs:.3f}",
                "split": str(predictions.split[i]),
                "correct": "true" if predictions.correct[i] else "false",
            }
        )
    return rows


def class_frequencies(
    victim: Victim, records: RecordSet, predictions: Predictions
) -> list[dict[str, object]]:
    """Per class: records, and how many of them the victim gets right, over all and held out."""
    rows: list[dict[str, object]] = []
    for letter in victim.classes:
        member = records.labels == letter
        held = member & (predictions.split == "heldout")
        rows.append(
            {
                "class": letter,
                "records": int(member.sum()),
                "correct": int((member & predictions.correct).sum()),
                "heldout_records": int(held.sum()),
                "heldout_correct": int((held & predictions.correct).sum()),
            }
        )
    return rows
