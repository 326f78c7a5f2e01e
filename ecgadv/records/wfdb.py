"""Any folder of WFDB records with a label file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgadv.errors import DataError, RecordError
from ecgadv.records import cache, conversion
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.preprocessing import FS

_SIGNAL_SUFFIXES = (".hea", ".dat", ".mat")


def load(
    root: str | Path | None = None,
    labels: str = "REFERENCE.csv",
    lead: int | str | Sequence[int | str] = 0,
    fs: int | None = None,
    label_map: Mapping[str, str] | None = None,
    rate: int = FS,
    classes: Sequence[str] = CLASSES,
) -> RecordSet:
    """Read the records that a label file names, one lead of each or several.

    Args:
        root: folder with the records (``.hea`` and signal files; names in the label file may hold
            subfolders).
        labels: CSV file in ``root`` with rows ``record,label``, with or without a header row.
        lead: name of the lead as the headers spell it (case does not matter), or its position from
            zero; a list of them for several leads, ``all`` for all in the order of the headers.
        fs: not needed; where it is given it must be ``rate``.
        label_map: label of the file -> class.
        rate: sampling rate of the result in Hz, that of the classifier.
        classes: of the classifier.

    Returns:
        Records in the order of the label file, in mV at ``rate``. One that cannot be read, lacks
        the lead, has a label outside the classes or misses more than half of its samples is in
        ``skipped`` with the reason. Other missing samples are NaN, which count as 0 for a
        classifier.

    Raises:
        DataError: ``root`` or the label file is missing, or no record can be used.
    """
    if root is None:
        raise DataError("data=wfdb needs data.root=FOLDER with WFDB records and a label file")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"data.root={root} {what}; data=wfdb needs a folder of WFDB records")
    if fs not in (None, rate):
        raise DataError(f"data.fs={fs}: records are resampled to {rate} Hz, the classifier's rate")
    conversion.check_label_map(label_map, classes)
    rows = conversion.read_label_file(folder / labels, f"data.labels={labels}")
    key = _key(folder, rows, lead, label_map)
    if rate != FS or tuple(classes) != CLASSES:
        key = hashlib.sha256(f"{key}|{rate}|{list(classes)}".encode()).hexdigest()
    records = cache.cached("wfdb", key, lambda: _read(folder, rows, lead, label_map, rate, classes))
    if not len(records):
        name, why = next(iter(records.skipped.items()))
        raise DataError(
            f"data.root={root}: none of {len(rows)} records can be used ({name}: {why})"
        )
    return records


def _key(
    folder: Path,
    rows: list[tuple[str, str]],
    lead: int | str | Sequence[int | str],
    label_map: Mapping[str, str] | None,
) -> str:
    """Digest over labels, options, headers, and size and time of every signal file."""
    options = sorted((str(k), str(v)) for k, v in (label_map or {}).items())
    digest = hashlib.sha256(f"{folder.resolve()}|{lead!r}|{options}|{rows}".encode())
    for record, _ in rows:
        for suffix in _SIGNAL_SUFFIXES:
            file = folder / f"{record}{suffix}"
            try:
                stat = file.stat()
                digest.update(f"\n{file.name}:{stat.st_size}:{stat.st_mtime_ns}".encode())
                if suffix == ".hea":
                    digest.update(file.read_bytes())
            except OSError:
                continue
    return digest.hexdigest()


def _read(
    folder: Path,
    rows: list[tuple[str, str]],
    lead: int | str | Sequence[int | str],
    label_map: Mapping[str, str] | None,
    rate: int,
    classes: Sequence[str],
) -> RecordSet:
    records: list[tuple[str, str, np.ndarray]] = []
    skipped: dict[str, str] = {}
    for record, label in rows:
        try:
            letter = conversion.check_label(label, label_map, classes)
            signal = read_record(folder / record, lead, rate)
            if records and signal.shape[1:] != records[0][2].shape[1:]:
                raise RecordError(
                    f"it has {signal.shape[1]} leads, the first record another number"
                )
            records.append((record, letter, signal))
        except RecordError as error:
            skipped[record] = str(error)
    return RecordSet.pack("wfdb", records, fs=rate, skipped=skipped)


def read_record(
    path: Path, lead: int | str | Sequence[int | str] = 0, rate: int = FS
) -> np.ndarray:
    """One lead of a WFDB record, or several.

    Args:
        path: of the record, without suffix.
        lead: name or position from zero; a list of them, or ``all``.
        rate: sampling rate of the result in Hz.

    Returns:
        (samples,) float32 in mV at ``rate`` Hz; of several leads (samples, leads).

    Raises:
        RecordError: no such record, truncated, or without that lead.
    """
    import wfdb

    if not path.with_name(f"{path.name}.hea").is_file():
        raise RecordError("its .hea file is missing")
    try:
        header = wfdb.rdheader(str(path))
        names = [str(name) for name in header.sig_name or []]
    except Exception as error:  # wfdb raises many kinds on damaged headers
        raise RecordError(f"its .hea file cannot be read ({_first_line(error)})") from None
    if isinstance(lead, str) and lead.lower() == "all" and "all" not in map(str.lower, names):
        lead = list(range(len(names)))
    wanted = [lead] if isinstance(lead, int | str) else list(lead)
    channels = [_channel(names, one) for one in wanted]
    fs = conversion.check_fs(header.fs)
    try:
        record = wfdb.rdrecord(str(path), channels=channels)
        signals = np.asarray(record.p_signal, dtype=np.float64)
        units = [str(unit) for unit in record.units]
    except FileNotFoundError as error:
        raise RecordError(
            f"its signal file is missing ({Path(error.filename or '').name})"
        ) from None
    except Exception as error:  # … and on damaged or truncated signals
        raise RecordError(
            f"its signal file is truncated or damaged ({_first_line(error)})"
        ) from None
    if header.sig_len and len(signals) < header.sig_len:
        raise RecordError(f"its signal file holds {len(signals)} of {header.sig_len} samples")
    leads = [
        conversion.convert(signal, fs, unit, rate)
        for signal, unit in zip(signals.T, units, strict=True)
    ]
    return np.stack(leads, axis=1) if len(leads) > 1 else leads[0]


def _channel(names: list[str], lead: int | str) -> int:
    text = str(lead).strip()
    lower = [name.strip().lower() for name in names]
    if text.lower() in lower:
        return lower.index(text.lower())
    if text.lstrip("-").isdigit():
        if 0 <= int(text) < len(names):
            return int(text)
        raise RecordError(f"it has {len(names)} leads, no lead {text} (counted from 0)")
    raise RecordError(f"it has no lead {text!r}, only {', '.join(names)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
