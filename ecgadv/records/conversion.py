"""From anybody's recording to the classifier's: mV, its sampling rate, one of its classes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import DataError, RecordError
from ecgadv.records.base import CLASSES, class_letter, class_name
from ecgadv.records.preprocessing import FS

MV_PER_UNIT = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}
"""Unit, in lower case -> mV."""

MAX_MISSING = 0.5
"""Largest share of missing samples of a record that is still used."""

_FS_RANGE = (30.0, 100_000.0)
_HEADINGS = (
    {"record", "id", "name", "file", "filename", "recording"},
    {"label", "class", "rhythm"},
)


def mv_per_unit(units: str) -> float:
    """How many mV one unit of a recording is.

    Raises:
        RecordError: an unknown unit.
    """
    factor = MV_PER_UNIT.get(units.strip().lower())
    if factor is None:
        raise RecordError(f"its unit is {units!r}, not one of V, mV, uV, nV")
    return factor


def check_fs(fs: Any) -> float:
    """A sampling rate as a float.

    Raises:
        RecordError: no number, or not one that an ECG can have.
    """
    try:
        value = float(np.asarray(fs).reshape(()))
    except (TypeError, ValueError):
        raise RecordError(f"its sampling rate {fs!r} is not one number in Hz") from None
    if not _FS_RANGE[0] <= value <= _FS_RANGE[1]:
        raise RecordError(
            f"its sampling rate is {value:g} Hz, not between {_FS_RANGE[0]:g} and {_FS_RANGE[1]:g}"
        )
    return value


def resample(signal: np.ndarray, fs: float, rate: int = FS) -> np.ndarray:
    """Resample by a polyphase filter to the classifier's rate.

    Args:
        signal: (samples,) or (samples, leads) at ``fs`` Hz; NaN marks missing samples.
        fs: its sampling rate in Hz.
        rate: that of the result in Hz.

    Returns:
        (ceil(samples · rate/fs),) float32, or the same of every lead; missing stretches stay NaN.
    """
    values = np.asarray(signal, dtype=np.float64)
    if values.ndim == 2:
        return np.stack([resample(lead, fs, rate) for lead in values.T], axis=1)
    ratio = Fraction(rate / fs).limit_denominator(2000)
    if ratio == 1:
        return values.astype(np.float32)
    from scipy.signal import resample_poly

    missing = ~np.isfinite(values)
    if missing.any():
        # A NaN would spread over the whole filter; bridge the gap and mark it again afterwards.
        where = np.arange(values.size)
        values = np.interp(where, where[~missing], values[~missing])
    out = resample_poly(values, ratio.numerator, ratio.denominator, padtype="line")
    if missing.any():
        nearest = np.rint(np.arange(out.size) / float(ratio)).astype(np.int64)
        out[missing[np.minimum(nearest, missing.size - 1)]] = np.nan
    return out.astype(np.float32)


def convert(signal: np.ndarray, fs: float, units: str = "mV", rate: int = FS) -> np.ndarray:
    """A recording in mV at the classifier's rate.

    Args:
        signal: (samples,) or (samples, leads) in ``units``; NaN and infinities mark missing
            samples.
        fs: sampling rate in Hz.
        units: V, mV, uV or nV.
        rate: that of the result in Hz.

    Returns:
        (samples,) or (samples, leads) float32 in mV at ``rate`` Hz, missing samples NaN.

    Raises:
        RecordError: empty, more than half of it missing, or unknown units.
    """
    values = np.asarray(signal, dtype=np.float64) * mv_per_unit(units)
    if values.size == 0:
        raise RecordError("it holds no samples")
    values = np.where(np.isfinite(values), values, np.nan)
    missing = float(np.isnan(values).mean())
    if missing > MAX_MISSING:
        raise RecordError(f"{missing:.0%} of its samples are missing (NaN)")
    if values.ndim == 2 and np.isnan(values).all(axis=0).any():
        lead = int(np.isnan(values).all(axis=0).argmax())
        raise RecordError(f"lead {lead + 1} of {values.shape[1]} is missing altogether (NaN)")
    return resample(values, fs, rate)


def check_label(
    label: str, label_map: Mapping[str, str] | None = None, classes: Sequence[str] = CLASSES
) -> str:
    """A class letter.

    Args:
        label: as the source spells it; ``noise`` is ``~``.
        label_map: source's spelling -> class; a label that is not in it stands for itself.
        classes: of the classifier.

    Raises:
        RecordError: not one of the classes.
    """
    label = label.strip()
    letter = class_letter(str((label_map or {}).get(label, label)))
    if letter not in classes:
        known = ", ".join(class_name(c) for c in classes)
        raise RecordError(f"label {label!r} is not one of {known}")
    return letter


def check_label_map(label_map: Mapping[str, str] | None, classes: Sequence[str] = CLASSES) -> None:
    """Raise :class:`DataError` where a label is mapped to something that is no class."""
    for label, target in (label_map or {}).items():
        if class_letter(str(target)) not in classes:
            *most, last = (class_name(c) for c in classes)
            raise DataError(f"data.label_map.{label}={target}: map to {', '.join(most)} or {last}")


def read_label_file(path: Path, option: str) -> list[tuple[str, str]]:
    """(record, label) rows of a CSV file; a header row is left out.

    Raises:
        DataError: missing, not text, or a row without two fields; the message names ``option``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"{option}: cannot read {path} ({why}); rows are 'record,label'") from None
    except UnicodeDecodeError:
        raise DataError(f"{option}: {path} is not a text file; rows are 'record,label'") from None
    rows: list[tuple[str, str]] = []
    for line, fields in enumerate(csv.reader(text.splitlines()), 1):
        if not "".join(fields).strip():
            continue
        if len(fields) < 2:
            raise DataError(f"{option}: {path} line {line} is not 'record,label'")
        record, label = fields[0].strip(), fields[1].strip()
        if not rows and (record.lower() in _HEADINGS[0] or label.lower() in _HEADINGS[1]):
            continue
        rows.append((record, label))
    if not rows:
        raise DataError(f"{option}: {path} names no record; rows are 'record,label'")
    return rows
