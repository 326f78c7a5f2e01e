"""Signals that lie in one ``.npz`` or ``.csv`` file."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from ecgadv.errors import DataError, RecordError
from ecgadv.options import Name, Place
from ecgadv.records import cache, conversion, files
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.intake import Intake, few_skipped
from ecgadv.records.labels import (
    LABEL_HEADINGS,
    RECORD_HEADINGS,
    Labels,
    LabelTable,
    check_label_map,
    find_column,
    plain_heading,
    read_label_file,
    read_table,
    read_text,
    text_of,
)
from ecgadv.records.preprocessing import FS

_RESERVED = ("fs", "labels", "ids", "lengths", "units")

_SAMPLE_HEADING = re.compile(r"[a-z_]{0,9}[\d.]+")
"""Heading of a column of samples: s0, sample_17, 0.004."""

_CSV_ROWS = "rows are 'id,label,sample,sample,…'"

_Row = tuple[str, str, np.ndarray]


def load(
    root: Place | None = None,
    fs: Annotated[float, Gt(0)] | None = None,
    labels: Name | None = None,
    key: Name | None = None,
    units: Name = "mV",
    label_map: Labels | None = None,
    start: conversion.Start = 0,
    trim_zeros: bool = False,
    rate: int = FS,
    classes: Sequence[str] = CLASSES,
) -> RecordSet:
    """Read labelled signals from an ``.npz`` or ``.csv`` file.

    An ``.npz`` file holds ``signals``, (R, n) and padded at the end with NaN (or with ``lengths``,
    (R,) samples), or (R, n, leads), or one 1-D array for each record, whose name is the record's;
    ``labels``, (R,) class letters in the same order; ``fs`` in Hz; and, if wanted, ``ids``, (R,)
    record names. A ``.csv`` file holds a record a row, ``id,label,sample,sample,…``.

    Args:
        root: the file.
        fs: sampling rate in Hz; needed where the file does not say.
        labels: name of the label array of an ``.npz`` (default ``labels``), or a CSV file beside
            ``root`` with rows ``id,label``.
        key: name of the array of signals of an ``.npz`` (default ``signals``).
        units: V, mV, uV or nV; ``none`` for values without a scale.
        label_map: label of the file -> class.
        start: seconds, or a time such as ``60s``, left out at the beginning of every record.
        trim_zeros: whether exact zeros at both ends, in all leads, are cut off first.
        rate: sampling rate of the result in Hz, that of the classifier.
        classes: of the classifier.

    Returns:
        Records in mV, resampled to ``rate``. One whose label is outside the classes or that cannot
        be used is in ``skipped`` with the reason. Missing samples are NaN, which count as the
        record's mean for a classifier.

    Raises:
        DataError: a missing or unreadable file, arrays of Python objects, arrays that do not agree,
            a sampling rate that is missing or contradicted, unknown units, an amplitude that no ECG
            has, or no usable record.
    """
    if root is None:
        raise DataError("data=arrays needs data.root=FILE.npz or FILE.csv")
    path = Path(root).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"data.root={root} {what}; data=arrays needs a .npz or .csv file")
    kind = path.suffix.lower()
    if kind not in (".npz", ".csv"):
        raise DataError(f"data.root={root}: data=arrays reads .npz and .csv files")
    why = files.pointer(path)
    if why:
        raise DataError(f"data.root={root} {why}")
    conversion.check_units(units)
    if fs is not None:
        fs = _rate(fs, f"data.fs={fs}")
    is_file = labels is not None and labels.lower().endswith((".csv", ".tsv", ".txt"))
    label_file = path.parent / labels if labels is not None and is_file else None
    mapped = check_label_map(label_map, classes)
    named = read_label_file(label_file, "data.labels") if label_file else None
    intake = Intake("arrays", rate, mapped, classes, conversion.seconds(start), trim_zeros, units)

    def build() -> RecordSet:
        if kind == ".npz":
            rows, own = _read_npz(path, fs, labels if named is None else None, key, named, units)
        else:
            rows, own = _read_csv(path, fs, named)
        return _pack(rows, own, intake, named, f"data.root={root} data.units={units}")

    told = (
        fs, labels, key, units, kind, sorted(mapped.items()), intake.start, trim_zeros, rate,
        list(classes),
    )  # fmt: skip
    digest = hashlib.sha256(repr(told).encode())
    for file in (path, label_file):
        if file is not None:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    records = cache.cached("arrays", digest.hexdigest(), build)
    if not len(records):
        detail = few_skipped(records.skipped) if records.skipped else "the file is empty"
        raise DataError(f"data.root={root}: no record can be used ({detail})")
    return records


def _rate(value: Any, where: str) -> float:
    try:
        return conversion.check_fs(value)
    except RecordError as error:
        raise DataError(f"{where}: {str(error).removeprefix('its ')}") from None


def _pack(
    rows: list[_Row], fs: float, intake: Intake, named: LabelTable | None, where: str
) -> RecordSet:
    units = intake.units or "mV"
    for record, label, signal in rows:
        try:
            if named is not None and record in named.several:
                raise RecordError(named.several[record])
            if named is not None and record not in named.rows:
                raise RecordError("the label file does not name it")
            letter = intake.letter(label)
            if signal.ndim == 0:
                raise RecordError("a sample of it is not a number")
            signal = _trim(signal)
            intake.ends.look(record, signal, fs)
            intake.add(record, letter, intake.convert(signal, fs, units))
        except RecordError as error:
            intake.skipped[record] = str(error)
    return intake.finish(where, named.notes if named is not None else ())


def _trim(signal: np.ndarray) -> np.ndarray:
    """Without the NaN padding at the end."""
    if not len(signal):
        return signal
    known = np.flatnonzero(~np.isnan(signal.reshape(len(signal), -1)).all(axis=1))
    return signal[: known[-1] + 1] if known.size else signal[:0]


def _read_npz(
    path: Path,
    fs: float | None,
    label_key: str | None,
    key: str | None,
    named: LabelTable | None,
    units: str | None = None,
) -> tuple[list[_Row], float]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays: dict[str, np.ndarray] = {}
            for name in names:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise DataError(
                        f"{path}: {name!r} holds Python objects, which are not read; "
                        "save numbers and text only (NaN-padded rows, or an array a record)"
                    ) from None
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds on damaged files
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"data.root={path} is not a readable .npz file ({first})") from None

    if "fs" in arrays:
        stored = _rate(arrays["fs"], f"{path}: 'fs'")
        if fs is not None and fs != stored:
            raise DataError(
                f"data.fs={fs:g} contradicts {path}, which says fs={stored:g}: drop one"
            )
        fs = stored
    if "units" in arrays and units is not None:
        _same_unit(path, arrays["units"], units)
    if fs is None:
        raise DataError(f"{path} has no 'fs'; give the sampling rate in Hz as data.fs=…")

    wanted = key or "signals"
    if wanted in arrays:
        signals = _rows_of(path, wanted, arrays)
        ids = [f"R{i + 1:05d}" for i in range(len(signals))]
    elif key is not None:
        raise DataError(f"data.key={key}: {path} has no such array, only {', '.join(names)}")
    else:
        own = [n for n in names if n not in (*_RESERVED, label_key)]
        whole = [n for n in own if arrays[n].ndim > 1]
        if whole:
            raise DataError(
                f"{path} has no array 'signals' but {whole[0]!r} of shape {arrays[whole[0]].shape};"
                f" if that holds the records, say data.key={whole[0]}"
            )
        ids = [n for n in own if arrays[n].ndim == 1]
        signals = [_numeric(path, n, arrays[n]) for n in ids]
        if not ids:
            raise DataError(
                f"{path} has no array 'signals', only {', '.join(names) or 'nothing'}; "
                "name it with data.key=…"
            )
    if "ids" in arrays:
        # A table of numbers has names such as 1.0, which a label file spells 1.
        ids = [
            _name(int(i) if isinstance(i, np.floating) and i == np.floor(i) else i)
            for i in arrays["ids"].reshape(-1)
        ]
        _agree(path, "ids", len(ids), len(signals))
        _unique(path, ids)

    if named is not None:
        return [(i, _label_of(named, i), s) for i, s in zip(ids, signals, strict=True)], fs
    label_key = label_key or "labels"
    if label_key not in arrays:
        raise DataError(
            f"{path} has no array {label_key!r} with a class (A, N, O, noise) a record; "
            "name it, or a CSV file, with data.labels=…"
        )
    given = arrays[label_key]
    if given.ndim > 1 and max(given.shape[1:]) > 1:
        raise DataError(
            f"{path}: {label_key!r} has shape {given.shape}; one label a record is needed, not a "
            "column for each class"
        )
    texts = [text_of(value) for value in given.reshape(-1)]
    _agree(path, label_key, len(texts), len(signals))
    return list(zip(ids, texts, signals, strict=True)), fs


def _same_unit(path: Path, said: np.ndarray, units: str) -> None:
    """Raise where the file itself names another unit than ``data.units``."""
    own = {_name(one) for one in said.reshape(-1)}
    try:
        agree = {conversion.mv_per_unit(one) for one in own} <= {conversion.mv_per_unit(units)}
    except RecordError:
        agree = False
    if not agree and not conversion.is_unscaled(units):
        raise DataError(
            f"data.units={units} contradicts {path}, whose 'units' says {', '.join(sorted(own))}"
        )


def _name(value: Any) -> str:
    """A record's name as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _unique(path: Path, ids: Sequence[str]) -> None:
    twice = next((one for one, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: record {twice} stands there twice; ids must be unique")


def _label_of(named: LabelTable, record: str) -> str:
    return named.rows.get(record, "")


def _agree(path: Path, name: str, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(f"{path}: {name!r} has {found} entries for {expected} records")


def _numeric(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: {name!r} holds {array.dtype}, not numbers")
    return array.astype(np.float64)


def _rows_of(path: Path, name: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    signals = _numeric(path, name, arrays[name])
    if signals.ndim == 3 and 1 in signals.shape[1:]:
        signals = signals.reshape(len(signals), -1)
    if signals.ndim not in (2, 3) or (signals.ndim == 3 and signals.shape[2] > signals.shape[1]):
        raise DataError(
            f"{path}: {name!r} has shape {signals.shape}; expected (records, samples), one lead, or"
            " (records, samples, leads)"
        )
    if "lengths" not in arrays:
        return list(signals)
    lengths = _numeric(path, "lengths", arrays["lengths"]).reshape(-1)
    _agree(path, "lengths", len(lengths), len(signals))
    if np.any(lengths != np.rint(lengths)) or np.any((lengths < 0) | (lengths > signals.shape[1])):
        raise DataError(f"{path}: 'lengths' must be whole numbers of 0 to {signals.shape[1]}")
    return [row[: int(n)] for row, n in zip(signals, lengths, strict=True)]


def _read_csv(path: Path, fs: float | None, named: LabelTable | None) -> tuple[list[_Row], float]:
    if fs is None:
        raise DataError(f"{path}: a .csv file has no sampling rate; give it in Hz as data.fs=…")
    try:
        table = read_table(read_text(path, f"data.root={path}", _CSV_ROWS))
    except csv.Error as error:
        raise DataError(f"data.root={path} is not a readable .csv file ({error})") from None
    id_at, label_at, samples_from = 0, 1, [2]
    rows: list[_Row] = []
    for number, (line, fields) in enumerate(table):
        if len(fields) < 3:
            raise DataError(f"{path} line {line}: expected id,label,sample,sample,…")
        heading = _csv_columns(path, fields) if number == 0 else None
        if heading is not None:
            id_at, label_at, samples_from = heading
            continue
        if len(samples_from) == 1:
            cells = fields[samples_from[0] :]
        else:
            cells = [fields[i] for i in samples_from if i < len(fields)]
        record = fields[id_at]
        label = _label_of(named, record) if named is not None else text_of(fields[label_at])
        rows.append((record, label, _samples(cells)))
    _unique(path, [record for record, _, _ in rows])
    return rows, fs


def _csv_columns(path: Path, fields: Sequence[str]) -> tuple[int, int, list[int]] | None:
    """Columns of id, label and samples as a heading has them; None where there is no heading.

    Raises:
        DataError: a column that is neither; it would be read as a sample.
    """
    names = [plain_heading(field) for field in fields]
    record, label = find_column(names, RECORD_HEADINGS), find_column(names, LABEL_HEADINGS)
    if record is None and label is None:
        return None
    if _samples(list(fields[2:])).ndim == 1 and (record, label) != (0, 1):
        return None
    others = [i for i in range(len(names)) if i not in (record, label)]
    for what, at in (("id", record), ("label", label)):
        first = names[others[0]] if at is None and others else ""
        if first and _SAMPLE_HEADING.fullmatch(first) and first in ("s0", "s1", "0", "1"):
            raise DataError(f"{path}: no column is called {what!r}; write id,label,{first},…")
    if record is None:
        record = others.pop(0)
    if label is None:
        label = others.pop(0)
    if others and others[0] < max(record, label) and not names[others[0]]:
        others.pop(0)  # The index that pandas writes has no heading.
    stems = Counter(_stem(names[i]) for i in others)
    usual = stems.most_common(1)[0][0] if stems else None
    odd = [fields[i] for i in others if names[i] and (usual is None or _stem(names[i]) != usual)]
    if odd:
        raise DataError(
            f"{path}: column {odd[0]!r} is neither the id, the label nor a sample (s0, s1, …); "
            "take it out"
        )
    return record, label, others if others != list(range(2, len(names))) else [2]


def _stem(name: str) -> str | None:
    """What headings of samples have in common: the letters before the number."""
    return name.rstrip("0123456789.") if _SAMPLE_HEADING.fullmatch(name) else None


def _samples(fields: list[str]) -> np.ndarray:
    """(samples,) float64, empty cells NaN; a 0-dimensional array where a cell is no number."""
    try:
        return np.array([_number(f) for f in fields], dtype=np.float64)
    except ValueError:
        return np.array(np.nan)


def _number(cell: str) -> float:
    """A cell's number, also with a decimal comma; NaN for what stands for a missing one."""
    if cell.lower() in ("", "na", "n/a", "null", "none"):
        return np.nan
    if "_" in cell:
        raise ValueError(cell)
    return float(cell.replace(",", "."))
