"""What the victim says of every record of a data source."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecgadv.evaluate.statistics import wilson
from ecgadv.evaluate.tables import Row, Table
from ecgadv.records import cache
from ecgadv.records.base import RecordSet
from ecgadv.records.files import reader_version
from ecgadv.threat.goals import softmax
from ecgadv.victims import pipeline
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
    key = f"{_key(victim, records)}{'-unfinished' if unfinished else ''}"
    return cache.cache_root() / f"predictions-{key}.npy"


def _key(victim: Victim, records: RecordSet) -> str:
    """A digest of all that decides the logits: weights, input, pipeline, recordings, code."""
    reads = sorted(victim.reading.items())
    told = (
        victim.sha256, _network(victim), reads, victim.channels, records.digest, records.fs,
        records.gain, reader_version(), _pipeline_version(),
    )  # fmt: skip
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32]


def _network(victim: Victim) -> str:
    """Layers and arithmetic of a Keras model; its weights alone do not tell them."""
    try:
        return f"{victim.model.dtype_policy.name} {victim.model.to_json()}"
    except Exception:  # No Keras model, or one with layers that do not describe themselves.
        return ""


@lru_cache(maxsize=1)
def _pipeline_version() -> str:
    """A digest of the code of the deployed pipeline."""
    return hashlib.sha256(Path(pipeline.__file__).read_bytes()).hexdigest()


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


CAUSES = (
    "usual causes are the order of victim.classes, victim.fs, victim.standardise or "
    "victim.preprocess, and the labels (data.label_map)"
)
"""Why a network may read recordings no better than by chance."""


def doubts(victim: Victim, records: RecordSet, predictions: Predictions) -> tuple[str, ...]:
    """What is suspicious in how a victim reads a labelled data set; nothing where it reads well.

    Said where it gives one class to nearly all records though their labels differ, or where it
    agrees with the labels no better than by chance: the upper bound of Cohen's kappa, from Wilson's
    95 % interval of the accuracy, is below 0.2. A few records alone never bring that about.

    Args:
        victim: the classifier.
        records: R records; only those with a label among its classes count.
        predictions: its answers.
    """
    from scipy.optimize import linear_sum_assignment

    usable = np.isfinite(predictions.logits).all(axis=1)
    rows = np.flatnonzero(usable & np.isin(records.labels, victim.classes))
    classes = list(victim.classes)
    truth = np.array([classes.index(label) for label in records.labels[rows]], dtype=np.int64)
    said = predictions.logits[rows].argmax(axis=1)
    count, size = len(rows), len(classes)
    if len(np.unique(truth)) < 2:
        return ()
    table = np.zeros((size, size), dtype=np.int64)
    np.add.at(table, (truth, said), 1)
    labelled, answered, right = table.sum(axis=1), table.sum(axis=0), int(np.trace(table))
    most = int(answered.argmax())
    share = f"{answered[most]} of {count} records as {classes[most]}"
    if wilson(answered[most], count)[0] >= 0.9 and wilson(labelled[most], count)[1] < 0.85:
        return (f"it reads {share}, {labelled[most]} are labelled so; {CAUSES}",)
    chance = float(labelled @ answered) / count**2
    upper = (wilson(right, count)[1] - chance) / max(1.0 - chance, 1e-9)
    if upper >= 0.2:
        return ()
    note = f"it reads {right} of {count} records as labelled, by chance it would be "
    note += f"{chance * count:.0f}; {CAUSES}"
    order = linear_sum_assignment(-table)[1]
    fitting = int(table[np.arange(size), order].sum())
    if (wilson(fitting, count)[0] >= 0.6 and size > 2) or fitting == count:
        names = [""] * size
        for own, output in enumerate(order):
            names[output] = "noise" if classes[own] == "~" else classes[own]
        note += f"; victim.classes=[{','.join(names)}] would fit {fitting} of {count}"
    return (note,)


PREDICTIONS = Table(
    {
        "record": str, "label": str, "predicted": str, "p_predicted": float, "seconds_long": float,
        "split": str, "correct": bool,
    },
    empty=frozenset({"p_predicted"}),
    digits={"p_predicted": ".6g", "seconds_long": ".3f"},
)  # fmt: skip
"""``predictions.csv``."""

FREQUENCIES = Table(
    {"class": str, "records": int, "correct": int, "heldout_records": int, "heldout_correct": int}
)
"""``class_frequencies.csv``."""


def table_rows(victim: Victim, records: RecordSet, predictions: Predictions) -> list[Row]:
    """Rows of ``predictions.csv``; a record that could not be used has an empty prediction."""
    rows: list[Row] = []
    probability = softmax(np.nan_to_num(predictions.logits))
    for i, record in enumerate(records.ids):
        known = bool(np.isfinite(predictions.logits[i]).all())
        best = int(probability[i].argmax())
        rows.append(
            {
                "record": record,
                "label": str(records.labels[i]),
                "predicted": victim.classes[best] if known else "",
                "p_predicted": float(probability[i, best]) if known else None,
                "seconds_long": float(records.lengths[i] / records.fs),
                "split": str(predictions.split[i]),
                "correct": bool(predictions.correct[i]),
            }
        )
    return rows


def class_frequencies(victim: Victim, records: RecordSet, predictions: Predictions) -> list[Row]:
    """Per class: records, and how many of them the victim gets right, over all and held out."""
    rows: list[Row] = []
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
