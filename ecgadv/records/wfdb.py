"""Any folder of WFDB records with a label file."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from ecgadv.errors import DataError, RecordError
from ecgadv.options import Form, Name, Place
from ecgadv.records import cache, conversion, files, wfdb_files
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.intake import Intake, few_skipped
from ecgadv.records.labels import Labels, LabelTable, check_label_map, read_label_file
from ecgadv.records.preprocessing import FS

Lead = int | str | Sequence[int | str]


def _is_lead(value: Any) -> bool:
    is_name = isinstance(value, str) and value != ""
    return is_name or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


Leads = Annotated[
    Lead,
    Form(
        "a lead's name, its number from 0, a list of them, or all",
        lambda v: all(map(_is_lead, v if isinstance(v, list) and v else [v])),
    ),
]

_SUFFIXES = (".hea", ".dat", ".mat")


def load(
    root: Place | None = None,
    labels: Name = "REFERENCE.csv",
    lead: Leads = 0,
    fs: Annotated[float, Gt(0)] | None = None,
    label_map: Labels | None = None,
    units: Name | None = None,
    start: conversion.Start = 0,
    trim_zeros: bool = False,
    rate: int = FS,
    classes: Sequence[str] = CLASSES,
) -> RecordSet:
    """Read the records that a label file names, one lead of each or several.

    Args:
        root: folder with the records (``.hea`` and signal files; names in the label file may hold
            subfolders).
        labels: table in ``root`` with a row a record: ``record,label``, or any columns under a
            heading with these names.
        lead: name of the lead as the headers spell it (case does not matter), or its position from
            zero; a list of them for several leads, ``all`` for all in the order of the first
            record.
        fs: not needed; where it is given it must be ``rate``.
        label_map: label of the file -> class.
        units: unit that the gains of the headers refer to (V, mV, uV, nV, or ``none`` for values
            without a scale); None as the headers say.
        start: seconds, or a time such as ``60s``, left out at the beginning of every record.
        trim_zeros: whether exact zeros at both ends, in all leads, are cut off first.
        rate: sampling rate of the result in Hz, that of the classifier.
        classes: of the classifier.

    Returns:
        Records in the order of the label file, in mV at ``rate``. One that cannot be read, lacks
        the lead, has a label outside the classes or misses more than half of its samples is in
        ``skipped`` with the reason. Other missing samples are NaN, which count as the record's
        mean for a classifier.

    Raises:
        DataError: ``root`` or the label file is missing, no record can be used, or most have an
            amplitude that no ECG has.
    """
    if root is None:
        raise DataError("data=wfdb needs data.root=FOLDER with WFDB records and a label file")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"data.root={root} {what}; data=wfdb needs a folder of WFDB records")
    if fs not in (None, rate):
        raise DataError(f"data.fs={fs}: records are resampled to {rate} Hz, the classifier's rate")
    if units is not None:
        conversion.check_units(units)
    mapped = check_label_map(label_map, classes)
    if not labels:
        raise DataError("data=wfdb needs data.labels=FILE, a table with rows record,label")
    table = read_label_file(folder / labels, f"data.labels={labels}")
    intake = Intake("wfdb", rate, mapped, classes, conversion.seconds(start), trim_zeros, units)
    paths = {record: _path(folder, record) for record in table.rows}
    first: dict[str, str] = {}
    for record, path in paths.items():
        twin = first.setdefault(os.path.normpath(path), record)
        if twin != record:
            table.several.setdefault(record, f"it is the same record as {twin}")
    named = [file for path in paths.values() for file in wfdb_files.files_of(path)]
    told = (
        str(folder.resolve()), lead, units, intake.start, trim_zeros, rate, list(classes),
        sorted(mapped.items()), table.rows, table.several, version("wfdb"),
    )  # fmt: skip
    key = hashlib.sha256(f"{told!r}|{files.content_key(named)}".encode()).hexdigest()
    records = cache.cached("wfdb", key, lambda: _read(paths, table, lead, intake, str(root)))
    if not len(records):
        raise DataError(
            f"data.root={root}: none of {len(table)} records can be used "
            f"({few_skipped(records.skipped)})"
        )
    return records


def _path(folder: Path, record: str) -> Path:
    """A record's path without suffix, as its name is meant."""
    for name in (record, record.replace("\\", "/")):
        path = folder / name
        if not path.name:
            continue
        if (path.parent / f"{path.name}.hea").is_file():
            return path
        # Many tables name a file of the record.
        if path.suffix.lower() in _SUFFIXES and path.with_suffix(".hea").is_file():
            return path.with_suffix("")
    return folder / record


def _read(
    paths: dict[str, Path], table: LabelTable, lead: Lead, intake: Intake, root: str
) -> RecordSet:
    order: list[str] | None = None
    at_position: list[Counter[str]] = []
    assumed: list[str] = []
    unsaid: list[str] = []
    for record, label in table.rows.items():
        try:
            if record in table.several:
                raise RecordError(table.several[record])
            letter = intake.letter(label)
            header = wfdb_files.read_header(paths[record])
            channels = _channels(header, lead, order)
            signal = _converted(header, channels, intake, record)
        except RecordError as error:
            intake.skipped[record] = str(error)
            continue
        order = order or [header.names[i] for i in channels]
        at_position.append(Counter(_by_position(header, channels, lead)))
        if any(header.assumed_gain[i] for i in channels):
            assumed.append(record)
        if header.assumed_fs:
            unsaid.append(record)
        intake.add(record, letter, signal)
    notes = list(table.notes)
    if assumed:
        notes.append(
            f"{len(assumed)} records ({assumed[0]}, …) have a header without a gain: 200 units per "
            "mV, as WFDB takes it"
        )
    if unsaid:
        notes.append(
            f"{len(unsaid)} records ({unsaid[0]}, …) have a header without a sampling rate: 250 Hz "
            "is what WFDB takes"
        )
    notes += _other_leads(at_position, lead)
    return intake.finish(f"data.root={root}", notes)


def _channels(header: wfdb_files.Header, lead: Lead, order: list[str] | None) -> list[int]:
    """Positions of the wanted leads of a record; ``order`` is that of the first record's."""
    lower = [name.strip().lower() for name in header.names]
    if isinstance(lead, str) and lead.strip().lower() == "all" and "all" not in lower:
        return wfdb_files.same_leads(header.names, header.names if order is None else order)
    wanted = [lead] if isinstance(lead, int | str) else list(lead)
    return [wfdb_files.channel(header.names, one) for one in wanted]


def _by_position(header: wfdb_files.Header, channels: Sequence[int], lead: Lead) -> list[str]:
    """``position name`` of the leads that were asked for by their position."""
    wanted = [lead] if isinstance(lead, int | str) else list(lead)
    return [f"{i} {header.names[i]}" for i in channels if i in wanted]


def _other_leads(found: Sequence[Counter[str]], lead: Lead) -> list[str]:
    """A note where a position is another lead in some records."""
    total: Counter[str] = sum(found, Counter())
    notes = []
    for position in dict.fromkeys(one.partition(" ")[0] for one in total):
        names = [(n, one.partition(" ")[2]) for one, n in total.most_common()
                 if one.partition(" ")[0] == position]  # fmt: skip
        if len(names) > 1:
            counted = ", ".join(f"{name or 'without a name'} in {n}" for n, name in names[:4])
            notes.append(
                f"data.lead={lead}: lead {position} is {counted} records; a lead's name instead "
                "of a number reads the same lead of each"
            )
    return notes


def _converted(
    header: wfdb_files.Header, channels: Sequence[int], intake: Intake, record: str
) -> np.ndarray:
    """Leads in mV at the classifier's rate, (samples,) or (samples, leads)."""
    found = wfdb_files.read_leads(header, channels, intake.units)
    rates = {fs for _, fs in found}
    if len(rates) == 1:
        stacked = np.stack([signal for signal, _ in found], axis=1)
        signal, fs = (stacked[:, 0] if len(found) == 1 else stacked), rates.pop()
        intake.ends.look(record, signal, fs)
        return intake.convert(signal, fs, "mV")
    for signal, fs in found:
        intake.ends.look(record, signal, fs)
    if intake.trim_zeros:
        found = _trimmed(found)
    leads = [
        conversion.convert(signal, fs, "mV", intake.rate, intake.start) for signal, fs in found
    ]
    samples = min(map(len, leads))
    return np.stack([one[:samples] for one in leads], axis=1)


def _trimmed(found: Sequence[tuple[np.ndarray, float]]) -> list[tuple[np.ndarray, float]]:
    """Leads of different rates without the time at both ends in which all of them are zero."""
    ends = [(conversion.zero_ends(signal), len(signal), fs) for signal, fs in found]
    first = min(zeros[0] / fs for zeros, _, fs in ends)
    last = max((samples - zeros[1]) / fs for zeros, samples, fs in ends)
    if first >= last:
        raise RecordError("it holds zeros only")
    return [(signal[round(first * fs) : round(last * fs)], fs) for signal, fs in found]


def read_record(path: Path, lead: Lead = 0, rate: int = FS) -> np.ndarray:
    """One lead of a WFDB record, or several.

    Args:
        path: of the record, without suffix.
        lead: name or position from zero; a list of them, or ``all``.
        rate: sampling rate of the result in Hz.

    Returns:
        (samples,) float32 in mV at ``rate`` Hz; of several leads (samples, leads).

    Raises:
        RecordError: no such record, truncated, without that lead or with two of that name.
    """
    header = wfdb_files.read_header(path)
    return _converted(header, _channels(header, lead, None), Intake("wfdb", rate), path.name)
