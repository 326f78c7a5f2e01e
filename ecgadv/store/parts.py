"""Finished chunks as files: rows of tables and arrays, each part there whole or not at all."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import StoreError
from ecgadv.evaluate.tables import Row
from ecgadv.evaluate.trials import Beside
from ecgadv.store.columns import PART_KEYS

TABLES = tuple(f.name for f in fields(Beside))


@dataclass(frozen=True)
class Part:
    """A finished chunk.

    Attributes:
        rows: of ``cases.csv``, in order.
        case_id: (K,) names of the ``ok`` cases, of which the arrays hold a row each.
        delta: (K, n), or (K, n, leads), float32.
        scale_mv: (K,), or (K, leads), float32.
        beside: rows of the other tables.
    """

    rows: list[Row]
    case_id: np.ndarray
    delta: np.ndarray
    scale_mv: np.ndarray
    beside: Beside = field(default_factory=Beside)

    @classmethod
    def of(
        cls, rows: list[Row], delta: np.ndarray, scale_mv: np.ndarray, beside: Beside | None = None
    ) -> Part:
        """A part of rows in order and of arrays with a row for each that is ``ok``.

        Raises:
            ValueError: rows and arrays disagree.
        """
        ids = [row["case_id"] for row in rows if row["status"] == "ok"]
        if not len(ids) == len(delta) == len(scale_mv):
            raise ValueError(f"{len(ids)} ok cases, {len(delta)} perturbations")
        names = np.array(ids, dtype="U") if ids else np.zeros(0, "U1")
        arrays = (delta.astype(np.float32), scale_mv.astype(np.float32))
        return cls(rows, names, *arrays, beside or Beside())

    @property
    def names(self) -> list[str]:
        """Names of all its cases."""
        return [row["case_id"] for row in self.rows]

    def packed(self) -> bytes:
        """The content of its file."""
        stored: dict[str, Any] = {key: getattr(self, key) for key in PART_KEYS}
        stored["rows"] = np.array(json.dumps(self.rows))
        for name in TABLES:
            if getattr(self.beside, name):
                stored[name] = np.array(json.dumps(getattr(self.beside, name)))
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **stored)
        return buffer.getvalue()


def read_part(file: Path) -> Part:
    """A part from its file.

    Raises:
        StoreError: it cannot be read.
        Exception: it is damaged, which can show in any way.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror})") from None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in PART_KEYS}
        rows = json.loads(str(stored["rows"]))
        tables = {name: json.loads(str(stored[name])) for name in TABLES if name in stored}
    lists = (rows, *tables.values())
    if len({len(a) for a in arrays.values()}) != 1 or not all(isinstance(t, list) for t in lists):
        raise ValueError("rows and arrays disagree")
    return Part(rows, **arrays, beside=_taken_out(rows) if not tables else Beside(**tables))


def _taken_out(rows: list[Row]) -> Beside:
    """The tables that rows of earlier versions carry; the rows are left without."""
    found: dict[str, list[Row]] = {name: [] for name in TABLES}
    for row in rows:
        for name in TABLES:
            held = row.pop(name, ())
            if name == "history":
                held = [{"case_id": row["case_id"], "iteration": k, "loss": v} for k, v in held]
            found[name] += held
    return Beside(**found)


def part_name(number: int) -> str:
    """Name of a chunk's file."""
    return f"part-{number:06d}.npz"


def part_files(folder: Path) -> dict[int, Path]:
    """Chunk number -> part, of a run's folder."""
    files = sorted((folder / "parts").glob("part-*.npz"))
    return {int(f.stem.split("-")[1]): f for f in files if f.stem.split("-")[1].isdigit()}
