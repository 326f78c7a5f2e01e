"""Index files in the layout of the paper's released ``data_select_A.csv``.

A row is ``class, confidence, seconds, record number``, all written as floats:
``0.0e+00,4.86e-01,3.0e+01,4.0e+00`` is record A00004 of class A, 30 s long, which their victim
classified correctly with a softmax output of 0.486. Their scripts take two numbers, ``start`` and
``stop``, that count rows from zero and leave ``stop`` out: the released call ``1 360`` attacks 359
records and never the first.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from ecgadv.errors import DataError
from ecgadv.records.base import CLASSES
from ecgadv.records.files import pointer

_COLUMNS = 4


@dataclass(frozen=True)
class IndexRow:
    """One row of an index file.

    Attributes:
        record: record name, e.g. ``A00005``.
        label: class letter.
        confidence: softmax output of the victim that made the file.
        seconds: length of the record.
    """

    record: str
    label: str
    confidence: float
    seconds: float


def read(file: str | Path, start: int | None = None, stop: int | None = None) -> list[IndexRow]:
    """Rows ``start`` (0 where ``None``) up to, without, ``stop`` (the end where ``None``).

    Raises:
        DataError: no such file, a row that is not four numbers with a class of 0 to 3, a record
            listed twice, or a range that holds no row; the message names file and line.
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"selection.file={file} cannot be read: {why}") from None
    except UnicodeDecodeError:
        raise DataError(f"selection.file={file} is not a text file") from None
    why = pointer(path)
    if why:
        raise DataError(f"selection.file={file} {why}")
    rows: list[IndexRow] = []
    lines: dict[str, int] = {}
    for line, fields in enumerate(csv.reader(text.splitlines()), 1):
        if not "".join(fields).strip():
            continue
        row = _parse(fields)
        if row is None:
            raise DataError(
                f"selection.file={file} line {line}: expected 'class (0-3), confidence, seconds, "
                f"record number', got {','.join(fields)[:60]!r}"
            )
        if row.record in lines:
            raise DataError(
                f"selection.file={file} line {line}: {row.record} is on line "
                f"{lines[row.record]} already"
            )
        lines[row.record] = line
        rows.append(row)
    first, last = start or 0, len(rows) if stop is None else stop
    if first < 0 or last < 0:
        raise DataError(f"selection.start={start} and selection.stop={stop} must be at least 0")
    chosen = rows[first:last]
    if not chosen:
        raise DataError(
            f"selection.file={file} has {len(rows)} rows, none from selection.start={first} "
            f"to selection.stop={last} (stop excluded)"
        )
    return chosen


def _parse(fields: list[str]) -> IndexRow | None:
    if len(fields) != _COLUMNS:
        return None
    try:
        label, confidence, seconds, number = (float(f) for f in fields)
    except ValueError:
        return None
    if label not in range(len(CLASSES)) or not 0 < number < 100_000 or number != int(number):
        return None
    return IndexRow(f"A{int(number):05d}", CLASSES[int(label)], confidence, seconds)
