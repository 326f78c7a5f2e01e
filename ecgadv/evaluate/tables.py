"""Tables of results: the columns of a file in order, what each holds, and which may be empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

ACCEPTED: dict[type, tuple[type, ...]] = {
    str: (str,),
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (float, int, np.floating, np.integer),
}
"""Kind of a column -> what its cells may be."""

MISSING = ["", "nan", "NaN"]
"""Texts of a cell of numbers that hold none."""


@dataclass(frozen=True)
class Table:
    """One kind of file; whoever writes it and whoever reads it share this.

    Attributes:
        columns: name -> ``str``, ``bool``, ``int`` or ``float``, in the file's order.
        empty: columns that may be empty: None, or absent from a row.
        digits: column -> format of its numbers, where it is not nine significant digits.
    """

    columns: Mapping[str, type]
    empty: frozenset[str] = frozenset()
    digits: Mapping[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """Columns that are texts, whatever they look like: a record may be called 007 or 1e3."""
        return [name for name, kind in self.columns.items() if kind is str]

    def extended(self, columns: Mapping[str, type]) -> Table:
        """The same with further columns at the end, which may be empty."""
        return replace(self, columns={**self.columns, **columns}, empty=self.empty | columns.keys())

    def check(self, row: Mapping[str, Any]) -> None:
        """Raise where a row is none of this table.

        Raises:
            ValueError: it has a column that the table lacks, lacks one that may not be empty, or
                holds a value of another kind.
        """
        unknown = row.keys() - self.columns.keys()
        if unknown:
            raise ValueError(f"row {_name(row)}: no such column: {', '.join(sorted(unknown))}")
        for name, kind in self.columns.items():
            value = row.get(name)
            if value is None:
                if name not in self.empty:
                    raise ValueError(f"row {_name(row)}: column {name} is empty")
            elif not isinstance(value, ACCEPTED[kind]):
                raise ValueError(f"row {_name(row)}: {name}={value!r} is no {kind.__name__}")

    def text(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The file's text.

        Raises:
            ValueError: a row is none of this table.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        for row in rows:
            self.check(row)
            writer.writerow(
                cell(row.get(name), self.digits.get(name, ".9g")) for name in self.columns
            )
        return buffer.getvalue()

    def frame(self, file: Path) -> pd.DataFrame:
        """The file as a data frame, whatever further columns it has, or lacks as an older one.

        Texts stay texts, and are never missing; an empty cell of any other column is missing. A
        cell of ``bool`` is read as it is written.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no table.
        """
        import pandas as pd

        with file.open(newline="", encoding="utf-8") as stream:
            found = next(csv.reader(stream), [])
        texts = set(self.texts)
        return pd.read_csv(
            file, dtype=dict.fromkeys(texts, str), keep_default_na=False,
            na_values={name: MISSING for name in found if name not in texts},
        )  # fmt: skip


def _name(row: Mapping[str, Any]) -> str:
    return str(next(iter(row.values()), ""))


def cell(value: Any, digits: str = ".9g") -> str:
    """Text of a cell: ``true``/``false``, numbers with their digits, empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return f"{value:{digits}}"
    return str(value)
