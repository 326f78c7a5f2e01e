"""Signals that lie in one ``.npz`` or ``.csv`` file."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import DataError, RecordError
from ecgadv.records import cache, conversion
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.preprocessing import FS

_RESERVED = ("fs", "labels", "ids", "lengths")

_CSV_HEADINGS = ("id", "record", "name")

_Row = tuple[str, str, np.ndarray]


def load(
    root: str | Path | None = None,
    fs: float | None = None,
    labels: str | None = None,
    key: str | None = None,
    units: str = "mV",
    label_map: Mapping[str, str] | None = None,
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
        units: V, mV, uV or nV.
        label_map: label of the file -> class.
        rate: sampling rate of the result in Hz, that of the classifier.
        classes: of the classifier.

    Returns:
        Records in mV, resampled to ``rate``. One whose label is outside the classes or that cannot
        be used is in ``skipped`` with the reason.

    Raises:
        DataError: a missing or unreadable file, arrays of Python objects, arrays that do not agree,
            a sampling rate that is missing or contradicted, unknown units, or no usable record.
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
    try:
        conversion.mv_per_unit(units)
    except RecordError:
        raise DataError(f"data.units={units}: must be V, mV, uV or nV") from None
    if fs is not None:
        fs = _rate(fs, f"data.fs={fs}")
    label_file = path.parent / labels if labels and labels.lower().endswith(".csv") else None
    conversion.check_label_map(label_map, classes)
    named = dict(conversion.read_label_file(label_file, "data.labels")) if label_file else None

    def build() -> RecordSet:
        if kind == ".npz":
            rows, own = _read_npz(path, fs, labels if named is None else None, key, named)
        else:
            rows, own = _read_csv(path, fs, named)
        return _pack(rows, own, units, label_map, rate, classes)

    digest = hashlib.sha256(f"{fs}|{labels}|{key}|{units}|{kind}|".encode())
    if label_map or rate != FS or tuple(classes) != CLASSES:
        mapped = sorted((str(k), str(v)) for k, v in (label_map or {}).items())
        digest.update(f"{mapped}|{rate}|{list(classes)}|".encode())
    for file in (path, label_file):
        if file is not None:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    records = cache.cached("arrays", digest.hexdigest(), build)
    if not len(records):
        name, why = next(iter(records.skipped.items()), ("", "the file is empty"))
        detail = f"{name}: {why}" if name else why
        raise DataError(f"data.root={root}: no record can be used ({detail})")
    return records


def _rate(value: Any, where: str) -> float:
    try:
        return conversion.check_fs(value)
    except RecordError as error:
        raise DataError(f"{where}: {str(error).removeprefix('its ')}") from None


def _pack(
    rows: list[_Row],
    fs: float,
    units: str,
    label_map: Mapping[str, str] | None,
    rate: int,
    classes: Sequence[str],
) -> RecordSet:
    records: list[_Row] = []
    skipped: dict[str, str] = {}
    for record, label, signal in rows:
        try:
            letter = conversion.check_label(label, label_map, classes)
            if signal.ndim == 0:
                raise RecordError("a sample of it is not a number")
            records.append((record, letter, conversion.convert(_trim(signal), fs, units, rate)))
        except RecordError as error:
            skipped[record] = str(error)
    return RecordSet.pack("arrays", records, fs=rate, skipped=skipped)


def _trim(signal: np.ndarray) -> np.ndarray:
    """Without the NaN padding at the end."""
    known = np.flatnonzero(~np.isnan(signal.reshape(len(signal), -1)).all(axis=1))
    return signal[: known[-1] + 1] if known.size else signal[:0]


def _read_npz(
    path: Path,
    fs: float | None,
    label_key: str | None,
    key: str | None,
    named: dict[str, str] | None,
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
    if fs is None:
        raise DataError(f"{path} has no 'fs'; give the sampling rate in Hz as data.fs=…")

    wanted = key or "signals"
    if wanted in arrays:
        signals = _rows_of(path, wanted, arrays)
        ids = [f"R{i + 1:05d}" for i in range(len(signals))]
    elif key is not None:
        raise DataError(f"data.key={key}: {path} has no such array, only {', '.join(names)}")
    else:
        ids = [n for n in names if n not in (*_RESERVED, label_key) and arrays[n].ndim == 1]
        signals = [_numeric(path, n, arrays[n]) for n in ids]
        if not ids:
            raise DataError(
                f"{path} has no array 'signals', only {', '.join(names) or 'nothing'}; "
                "name it with data.key=…"
            )
    if "ids" in arrays:
        ids = [str(i) for i in arrays["ids"].reshape(-1)]
        _agree(path, "ids", len(ids), len(signals))

    if named is not None:
        return [(i, named.get(i, ""), s) for i, s in zip(ids, signals, strict=True)], fs
    label_key = label_key or "labels"
    if label_key not in arrays:
        raise DataError(
            f"{path} has no array {label_key!r} with a class (A, N, O, noise) a record; "
            "name it, or a CSV file, with data.labels=…"
        )
    texts = [_text(value) for value in arrays[label_key].reshape(-1)]
    _agree(path, label_key, len(texts), len(signals))
    return list(zip(ids, texts, signals, strict=True)), fs


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


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


def _read_csv(
    path: Path, fs: float | None, named: dict[str, str] | None
) -> tuple[list[_Row], float]:
    if fs is None:
        raise DataError(f"{path}: a .csv file has no sampling rate; give it in Hz as data.fs=…")
    rows: list[_Row] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for line, fields in enumerate(csv.reader(file), 1):
                if not "".join(fields).strip():
                    continue
                if len(fields) < 3:
                    raise DataError(f"{path} line {line}: expected id,label,sample,sample,…")
                record, label = fields[0].strip(), fields[1].strip()
                signal = _samples(fields[2:])
                if not rows and signal.ndim != 1 and record.lower() in _CSV_HEADINGS:
                    continue
                rows.append((record, named.get(record, "") if named else label, signal))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.root={path} is not a readable .csv file ({error})") from None
    return rows, fs


def _samples(fields: list[str]) -> np.ndarray:
    """(samples,) float64, empty cells NaN; a 0-dimensional array where a cell is no number."""
    try:
        return np.array([float(f) if f.strip() else np.nan for f in fields], dtype=np.float64)
    except ValueError:
        return np.array(np.nan)
