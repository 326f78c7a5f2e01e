"""Labels and record names as people write them: as text, in tables with a heading or none."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ecgadv.errors import DataError, RecordError
from ecgadv.options import Form
from ecgadv.records import files
from ecgadv.records.base import CLASSES, class_letter, class_name

LabelMap = Mapping[Any, Any]
"""Label of a file -> class; both may come as text, numbers, booleans or None (``~`` of YAML)."""

Labels = Annotated[
    LabelMap, Form("a mapping such as {AFIB: A, SR: N}", lambda v: isinstance(v, Mapping))
]

RECORD_HEADINGS = (
    "record", "recording", "record_name", "recordname", "record_id", "recording_id", "id", "name",
    "file", "filename", "file_name",
)  # fmt: skip
LABEL_HEADINGS = ("label", "labels", "class", "rhythm", "diagnosis", "target")
_NUMBERED = re.compile(
    r"(?:(?:first|second|third|fourth|fifth)_?labels?|labels?_?\d+|(?:dx|diagnosis|class)_?\d+)"
)
"""Headings of several labels a record, as CPSC 2018 has them."""

_PTBXL = {"ecg_id", "scp_codes"}
_ROWS = "rows are 'record,label'"


def text_of(value: Any) -> str:
    """A label or class as text: 1, 1.0 and "1" are the same, ``noise`` and None are ``~``."""
    if value is None:
        return "~"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value != value:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e18:
        value = int(value)
    text = str(value).strip()
    if re.fullmatch(r"[+-]?\d+\.0*", text):
        text = text.partition(".")[0]
    if text.lower() in ("true", "false"):
        text = text.lower()
    return class_letter(text)


def is_kept(key: str) -> bool:
    """Whether a label that is read as a number or a boolean still is the label that is written."""
    text = key.strip()
    if re.fullmatch(r"[+-]?[\d_]*\.?[\d_]*(?:e[+-]?[\d_]+)?|nan|inf", text, re.I) is None:
        return True
    try:
        number = float(text)
    except ValueError:
        return True
    return text_of(number) == text_of(text)


def check_label_map(label_map: LabelMap | None, classes: Sequence[str] = CLASSES) -> dict[str, str]:
    """A label map as text -> class letter.

    Raises:
        DataError: a label is mapped to something that is no class, or to two classes.
    """
    letters = {text_of(c): c for c in classes}
    mapped: dict[str, str] = {}
    for label, target in (label_map or {}).items():
        letter = letters.get(text_of(target))
        if letter is None:
            *most, last = (class_name(c) for c in classes)
            shown = class_name(text_of(label))
            raise DataError(
                f"data.label_map.{shown}={class_name(text_of(target))}: "
                f"map to {', '.join(most)} or {last}"
            )
        if mapped.setdefault(text_of(label), letter) != letter:
            raise DataError(
                f"data.label_map: label {class_name(text_of(label))} is mapped to "
                f"{class_name(mapped[text_of(label)])} and to {class_name(letter)}"
            )
    return mapped


def check_label(
    label: Any, label_map: LabelMap | None = None, classes: Sequence[str] = CLASSES
) -> str:
    """A class letter.

    Args:
        label: as the source spells it; ``noise`` is ``~``, and 1.0 is 1.
        label_map: source's spelling -> class; a label that is not in it stands for itself.
        classes: of the classifier.

    Raises:
        RecordError: not one of the classes; the message shows how to map it.
    """
    text = text_of(label)
    mapped = check_label_map(label_map, classes).get(text)
    letter = mapped if mapped is not None else {text_of(c): c for c in classes}.get(text)
    if letter is None:
        if not text:
            raise RecordError("it has no label")
        known = ", ".join(class_name(c) for c in classes)
        raise RecordError(f"label {text!r} is not one of {known}{_how_to_map(text, classes)}")
    return letter


def _how_to_map(text: str, classes: Sequence[str]) -> str:
    """An override that can be pasted; "" for a label that a command line cannot hold."""
    name = class_name(text)
    plain = re.fullmatch(r"[\w.+-][\w.+ -]*", name, re.ASCII)
    if not plain or not is_kept(name) or name.lower() == "null":
        return " (map it with data.label_map in a yaml file of yours, in quotes)"
    return f'; "data.label_map={{{name}: {class_name(classes[0])}}}" would map it'


@dataclass
class LabelTable:
    """What a label file says.

    Attributes:
        rows: record -> label as text, in order.
        several: records that the file gives several labels, and which.
        notes: what is worth saying of how the file was read.
    """

    rows: dict[str, str] = field(default_factory=dict)
    several: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, record: str, given: Sequence[str]) -> None:
        """Note the labels of a row; a record that stands there twice must say the same."""
        distinct = list(dict.fromkeys(text for text in given if text))
        if len(distinct) > 1:
            self.several[record] = f"it has several labels ({', '.join(distinct)}), one is needed"
        label = distinct[0] if distinct else ""
        before = self.rows.setdefault(record, label)
        if before != label and record not in self.several:
            self.several[record] = f"it is listed twice, with labels {before} and {label}"


def read_text(path: Path, option: str, rows: str = _ROWS) -> str:
    """Text of a table: UTF-8 with a byte-order mark or without, or UTF-16 with one.

    Raises:
        DataError: missing, a pointer, or no text; the message names ``option``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"{option}: cannot read {path} ({why}); {rows}") from None
    why = files.pointer_in(content)
    if why:
        raise DataError(f"{option}: {path} {why}")
    is_wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{option}: {path} is not a text file; {rows}") from None


def delimiter(text: str) -> str:
    """What separates the fields of a table: whatever its first line has most of, or a comma."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    counts = {mark: bare.count(mark) for mark in ",;\t|"}
    return max(counts, key=counts.__getitem__)


def read_table(text: str) -> list[tuple[int, list[str]]]:
    """(line, fields without blanks around them) of all rows that are not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text))
    rows = []
    for fields in reader:
        stripped = [f.strip() for f in fields]
        if any(stripped):
            rows.append((reader.line_num, stripped))
    return rows


def plain_heading(heading: str) -> str:
    """A heading in lower case with underscores: ``Record Name`` is ``record_name``."""
    return re.sub(r"[\s-]+", "_", heading.strip().lower())


def find_column(headings: Sequence[str], known: Sequence[str]) -> int | None:
    """Position of the heading that stands first in ``known``."""
    return next((headings.index(name) for name in known if name in headings), None)


def read_label_file(path: Path, option: str) -> LabelTable:
    """:func:`label_table` of a file; also raises where it is missing, a pointer or no text."""
    return label_table(read_text(path, option), path, option)


def label_table(text: str, path: Path, option: str) -> LabelTable:
    """Records and labels of a table, by its heading where it has one.

    Raises:
        DataError: a row without two fields, or columns that nothing names; the message names
            ``option`` and ``path``.
    """
    try:
        rows = read_table(text)
    except csv.Error as error:
        raise DataError(f"{option}: {path} is not a table ({error}); {_ROWS}") from None
    if not rows:
        raise DataError(f"{option}: {path} names no record; {_ROWS}")
    table = LabelTable()
    line, first = rows[0]
    headings = [plain_heading(name) for name in first]
    columns = _columns(headings, option, path, len(rows) > 1)
    if columns is not None:
        rows = rows[1:]
        record_at, labels_at = columns
        if len([name for name in headings if name]) > 2:
            used = ", ".join(first[i] for i in labels_at)
            table.notes.append(
                f"{path.name}: records from column {first[record_at] or 'number 1'!r}, labels from "
                f"{used!r}"
            )
    for line, fields in rows:
        if columns is None:
            record_at, labels_at = 0, list(range(1, len(fields)))
        if len(fields) <= min([record_at, *labels_at] if labels_at else [1]) or len(fields) < 2:
            raise DataError(f"{option}: {path} line {line} is not 'record,label'")
        given = [text_of(fields[i]) for i in labels_at if i < len(fields) and fields[i]]
        record = fields[record_at] if record_at < len(fields) else ""
        if not record:
            raise DataError(f"{option}: {path} line {line} names no record; {_ROWS}")
        table.add(record, given)
    if columns is None and len(table.several) == len(table) and len(table) > 1:
        raise DataError(
            f"{option}: {path} has more than two columns and no heading; write one above them "
            "with 'record' and 'label' in it"
        )
    if not table.rows:
        raise DataError(f"{option}: {path} names no record; {_ROWS}")
    return table


def _columns(
    headings: Sequence[str], option: str, path: Path, more: bool
) -> tuple[int, list[int]] | None:
    """Columns of the record and of its labels; None where the first row is no heading."""
    if set(headings) >= _PTBXL:
        raise DataError(
            f"{option}: {path} is PTB-XL's table, whose scp_codes are several weighted statements "
            "a record; write a file with the columns record (its filename_lr or filename_hr) and "
            "label"
        )
    record = find_column(headings, RECORD_HEADINGS)
    label = find_column(headings, LABEL_HEADINGS)
    numbered = [i for i, name in enumerate(headings) if _NUMBERED.fullmatch(name)]
    # Two columns of one name are several labels.
    labels = (
        numbered
        if label is None
        else [i for i, name in enumerate(headings) if name == headings[label]]
    )
    if record is None and not labels:
        return None
    if not more and record is not None and not labels:
        return None
    if record is None:
        others = [i for i in range(len(headings)) if i not in labels]
        record = others[0] if others else 0
    if not labels:
        others = [i for i, name in enumerate(headings) if i != record and name]
        if len(others) != 1:
            shown = ", ".join(name or "''" for name in headings)
            raise DataError(
                f"{option}: {path} has the columns {shown}, none of which is called 'label'; "
                "rename the one that holds the labels"
            )
        labels = others
    return record, labels
