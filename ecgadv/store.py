"""Results on disk: finished chunks as atomic parts, exported to the contract's files.

A part is written under another name, synced and renamed, so it is there whole or not at all;
killing a run loses the chunk in flight and nothing else. ``cases.csv``, ``perturbations.npz`` and
``summary.json`` are exports of the parts.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.errors import StoreError
from ecgadv.evaluate.perceptibility import PERCEPTIBILITY_COLUMNS
from ecgadv.records.base import CLASSES
from ecgadv.records.opening import open_source
from ecgadv.records.preprocessing import FS, N_SAMPLES

if TYPE_CHECKING:
    import pandas as pd
    from filelock import BaseFileLock

CASE_COLUMNS = (
    "case_id", "record", "source", "target", "predicted", "success", "p_target", "margin", "d_l2",
    "d_smooth", "d_smooth_l2", "l2_norm", "linf", "snr_db", "prd_percent", "n_gradients",
    "n_forwards", "seconds", "status", "message", "split",
    "target_rate", "mean_power", "rms_mv", "peak_mv", "n_records", *PERCEPTIBILITY_COLUMNS,
)  # fmt: skip
"""Columns of ``cases.csv``; those after ``message`` were added to the contract's first 20."""

EXPORT_PERIOD = 20.0
"""Seconds between two exports of the perturbations while a run goes on; parts hold them anyway."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file so that a reader sees the old or the new content, never a mixture.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV, atomically; missing cells are empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: format_cell(v) for k, v in row.items()} for row in rows)
    write_atomic(path, buffer.getvalue())


def format_cell(value: Any) -> str:
    """Text of a table cell: ``true``/``false``, nine significant digits, empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return f"{value:.9g}"
    return str(value)


@dataclass
class RunStore:
    """A run's folder while the run goes on.

    Attributes:
        folder: absolute path.
        parts: chunk number -> its rows and arrays, as read or written.
    """

    folder: Path
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _exported: float = 0.0
    _lock: BaseFileLock | None = None

    def open(self) -> RunStore:
        """Create the folder, take its lock and read the parts that are there.

        Raises:
            StoreError: not writable, or another process works on it.
        """
        from filelock import FileLock, Timeout

        try:
            (self.folder / "parts").mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = self._owner()
            raise StoreError(
                f"{self.folder}: another process{owner} is working on this run"
            ) from None
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror})") from None
        write_atomic(self.folder / ".owner", str(os.getpid()))
        for place in (self.folder, self.folder / "parts"):
            for leftover in place.glob(".*.partial"):
                leftover.unlink(missing_ok=True)
        for file in sorted((self.folder / "parts").glob("part-*.npz")):
            number = int(file.stem.split("-")[1])
            try:
                self.parts[number] = _read_part(file)
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
                file.rename(file.with_suffix(".corrupt"))
        return self

    def _owner(self) -> str:
        try:
            return f" (pid {(self.folder / '.owner').read_text().strip()})"
        except OSError:
            return ""

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunStore:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The work as cut at the first start; a resumed run does the same chunks again.

        Args:
            fresh: what this start would do; kept where there is none yet.

        Raises:
            StoreError: the stored plan belongs to another configuration.
        """
        file = self.folder / "plan.json"
        if file.is_file():
            stored = _json(file)
            if stored.get("identity") != fresh["identity"]:
                raise StoreError(
                    f"{self.folder}: holds results of another configuration, data set, victim or "
                    "version; use resume=false or another folder"
                )
            return stored
        write_atomic(file, json.dumps(fresh, indent=1))
        return dict(fresh)

    def add(
        self, number: int, rows: list[dict[str, Any]], delta: np.ndarray, scale_mv: np.ndarray
    ) -> None:
        """Keep one finished chunk: rows in order; arrays hold a row per ``ok`` case.

        Raises:
            StoreError: it cannot be written; earlier chunks are untouched.
        """
        ids = [row["case_id"] for row in rows if row["status"] == "ok"]
        if len(ids) != len(delta) or len(ids) != len(scale_mv):
            raise StoreError(f"chunk {number}: {len(ids)} ok cases, {len(delta)} perturbations")
        part = {
            "rows": rows,
            "case_id": np.array(ids, dtype="U") if ids else np.zeros(0, "U1"),
            "delta": delta.astype(np.float32),
            "scale_mv": scale_mv.astype(np.float32),
        }
        buffer = io.BytesIO()
        stored: dict[str, Any] = {k: v for k, v in part.items() if k != "rows"}
        stored["rows"] = np.array(json.dumps(rows))
        np.savez(buffer, allow_pickle=False, **stored)
        write_atomic(self.folder / "parts" / f"part-{number:06d}.npz", buffer.getvalue())
        self.parts[number] = part

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far, in chunk order."""
        return [row for number in sorted(self.parts) for row in self.parts[number]["rows"]]

    def export(self, final: bool = False) -> None:
        """Write ``cases.csv``, and the perturbations where that is due."""
        write_csv(self.folder / "cases.csv", self.rows(), CASE_COLUMNS)
        now = time.monotonic()
        if not final and now - self._exported < EXPORT_PERIOD:
            return
        self._exported = now
        parts = [self.parts[n] for n in sorted(self.parts) if len(self.parts[n]["delta"])]
        buffer = io.BytesIO()
        if parts:
            arrays = {
                key: np.concatenate([part[key] for part in parts])
                for key in ("case_id", "delta", "scale_mv")
            }
        else:
            arrays = {
                "case_id": np.zeros(0, "U1"),
                "delta": np.zeros((0, 0), np.float32),
                "scale_mv": np.zeros(0, np.float32),
            }
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomic(self.folder / "perturbations.npz", buffer.getvalue())

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the run, atomically."""
        write_atomic(self.folder / name, json.dumps(content, indent=1, default=str) + "\n")


def _read_part(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as stored:
        part: dict[str, Any] = {k: stored[k] for k in ("case_id", "delta", "scale_mv")}
        part["rows"] = json.loads(str(stored["rows"]))
    return part


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        folder: where it lies.
        summary: ``summary.json``.
        config: the composed configuration.
        case_ids: (M,) names of the rows of ``delta``.
        delta: (M, n), or (M, n, leads), float32 in standardised units.
        scale_mv: (M,), or (M, leads), mV per standardised unit.
    """

    folder: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    case_ids: np.ndarray
    delta: np.ndarray
    scale_mv: np.ndarray

    @cached_property
    def cases(self) -> pd.DataFrame:
        """``cases.csv`` with ``success`` as bool."""
        import pandas as pd

        text = dict.fromkeys(
            ("case_id", "record", "source", "target", "predicted", "status", "message", "split"),
            str,
        )
        table = pd.read_csv(self.folder / "cases.csv", dtype=text, keep_default_na=False,
                            na_values={c: [""] for c in CASE_COLUMNS if c not in text})  # fmt: skip
        table["success"] = table["success"].astype(str).str.lower() == "true"
        return table

    @cached_property
    def _inputs(self) -> tuple[np.ndarray, np.ndarray]:
        from ecgadv.config import instantiate

        if "data" not in self.config:
            raise StoreError(f"{self.folder}: no config.json, so its recordings are not known")
        said = self.summary.get("input", {})
        records = open_source(
            self.config["data"], instantiate, said.get("fs", FS), said.get("classes", CLASSES)
        )
        digest = self.summary.get("data", {}).get("digest")
        if digest and records.digest != digest:
            raise StoreError(
                f"{self.folder}: the recordings of data={records.name} have changed since this run"
            )
        known = dict(zip(self.cases["case_id"], self.cases["record"], strict=True))
        rows = [records.index(known[str(case)]) for case in self.case_ids]
        n = self.delta.shape[1] if self.delta.ndim > 1 and self.delta.shape[1] else N_SAMPLES
        batch = records.batch(rows, n, said.get("standardise", "lead"))
        return batch.x, batch.lengths

    @property
    def x(self) -> np.ndarray:
        """(M, n), or (M, n, leads), float32 records of the rows of ``delta``, read again."""
        return self._inputs[0]

    @property
    def lengths(self) -> np.ndarray:
        """(M,) own samples of the same records."""
        return self._inputs[1]


def load_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        StoreError: it is no run, or one of its files is damaged.
    """
    place = Path(folder)
    if not (place / "cases.csv").is_file():
        raise StoreError(f"{place}: no cases.csv, so this is not the folder of a run")
    try:
        with np.load(place / "perturbations.npz", allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ("case_id", "delta", "scale_mv")}
    except FileNotFoundError:
        raise StoreError(
            f"{place}: perturbations.npz is missing; start the run again to resume it"
        ) from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"{place}: perturbations.npz is damaged ({error})") from None
    return Run(
        place.resolve(), _json(place / "summary.json"), _json(place / "config.json"),
        arrays["case_id"], arrays["delta"], arrays["scale_mv"],
    )  # fmt: skip


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: damaged ({error})") from None
    if not isinstance(content, dict):
        raise StoreError(f"{file}: damaged (no JSON object)")
    return content


def success_pairs(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Attacked rows (``ok`` or ``failed``) by ``A>N``, in order of appearance."""
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] != "skipped":
            pairs.setdefault(f"{row['source']}>{row['target']}", []).append(row)
    return pairs
