"""Results on disk: finished chunks as atomic parts, exported to the contract's files.

A part is written under another name, synced and renamed, so it is there whole or not at all;
killing a run loses the chunk in flight and nothing else. ``cases.csv``, ``perturbations.npz`` and
``summary.json`` are exports of the parts. A run that is split over machines has a folder of the
same kind for each share in ``shards/``, whose parts the run's own folder takes over.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ecgadv.errors import RefusedError, StoreError
from ecgadv.evaluate.tables import Row, Table
from ecgadv.evaluate.trials import Beside
from ecgadv.store.columns import CASE_COLUMNS, CASES, PART_KEYS
from ecgadv.store.files import read_object, write_atomic, write_csv
from ecgadv.store.identity import SHARDS, differing, message
from ecgadv.store.locks import FolderLock
from ecgadv.store.parts import Part, part_files, part_name, read_part
from ecgadv.store.reading import Run, load_run

__all__ = [
    "CASES",
    "CASE_COLUMNS",
    "PART_KEYS",
    "SHARDS",
    "FolderLock",
    "Part",
    "Run",
    "RunStore",
    "is_complete",
    "load_run",
    "part_files",
    "shares",
    "success_pairs",
    "write_atomic",
    "write_csv",
]

EXPORT_PERIOD = 20.0
"""Seconds between two exports of the perturbations while a run goes on; parts hold them anyway."""

EXPORT_SHARE = 0.005
"""Share of a run's time that each kind of export may take while the run goes on."""


@dataclass
class RunStore:
    """A run's folder while the run goes on.

    Attributes:
        folder: absolute path.
        cases: the table of its cases.
        parts: chunk number -> its rows and arrays, as read or written.
        set_aside: damaged parts that were found, under their new names.
    """

    folder: Path
    cases: Table = CASES
    parts: dict[int, Part] = field(default_factory=dict)
    set_aside: list[Path] = field(default_factory=list)
    _lock: FolderLock | None = None
    _due: dict[str, float] = field(default_factory=dict)
    _behind: bool = False

    def open(self) -> RunStore:
        """Create the folder, take its lock and read the parts that are there.

        Raises:
            BusyError: another process works on it.
            StoreError: it cannot be written or read.
        """
        lock = FolderLock(self.folder)
        lock.refuse_taken()
        self._lock = lock.acquire()
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _read(self) -> None:
        try:
            (self.folder / "parts").mkdir(exist_ok=True)
            for place in (self.folder, self.folder / "parts"):
                for leftover in place.glob(".*.partial"):
                    leftover.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror})") from None
        for number, file in part_files(self.folder).items():
            try:
                self.parts[number] = read_part(file)
            except StoreError:
                raise
            except Exception:  # damage can show in any way
                self._put_aside(file)

    def _put_aside(self, file: Path) -> None:
        target = file.with_suffix(".corrupt")
        try:
            file.rename(target)
        except OSError as error:
            raise StoreError(
                f"{file}: is damaged and cannot be set aside ({error.strerror})"
            ) from None
        self.set_aside.append(target)

    def close(self) -> None:
        """Bring ``cases.csv`` up to date and give the lock back."""
        if self._behind:
            with contextlib.suppress(StoreError):
                self._export_cases()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunStore:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The work as cut at the first start; a resumed run does the same chunks again.

        All shares of a split run follow one plan: that of the run's folder. Parts of shares are
        taken over, and a part that is not the chunk that its name says is set aside.

        Args:
            fresh: what this start would do; kept where there is none yet.

        Raises:
            BusyError: a share that is not finished is being worked on.
            StoreError: the stored plan, or that of a share, belongs to another configuration.
        """
        is_share = self.folder.parent.name == SHARDS
        plan = self._stored_plan(self.folder, fresh)
        if plan is None:
            plan = self._common_plan(fresh) if is_share else self._plan_of_shares(fresh)
            write_atomic(self.folder / "plan.json", json.dumps(plan, indent=1))
        for number, chunk in enumerate(plan["chunks"]):
            part = self.parts.get(number)
            if part is not None and part.names != chunk:
                del self.parts[number]
                self._put_aside(self.folder / "parts" / part_name(number))
        if not is_share:
            self._take_over(plan)
        return plan

    @staticmethod
    def _stored_plan(folder: Path, fresh: Mapping[str, Any]) -> dict[str, Any] | None:
        file = folder / "plan.json"
        if not file.is_file():
            return None
        stored = read_object(file)
        was, wanted = stored.get("identity"), fresh["identity"]
        if was != wanted:
            part = differing(was if isinstance(was, dict) else {}, wanted) or "signature"
            raise RefusedError(message(folder, part))
        return stored

    def _common_plan(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The plan that the first share to start wrote into the run's folder."""
        home = self.folder.parent.parent
        lock = FolderLock(home, "its plan", ".plan.lock")
        lock.acquire(timeout=60)
        try:
            plan = self._stored_plan(home, fresh)
            if plan is None:
                plan = dict(fresh)
                write_atomic(home / "plan.json", json.dumps(plan, indent=1))
        finally:
            lock.release()
        return plan

    def _plan_of_shares(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The plan of shares that were made on other disks, or else the fresh one."""
        for share in shares(self.folder):
            plan = self._stored_plan(share, fresh)
            if plan is not None:
                return plan
        return dict(fresh)

    def _take_over(self, plan: Mapping[str, Any]) -> None:
        """Keep the parts of shares as this folder's own."""
        for share in shares(self.folder):
            theirs = self._stored_plan(share, plan)
            # How fast gradients were differs from machine to machine.
            untold = {"gradients": None}
            if theirs is not None and theirs | untold != {**plan, **untold}:
                raise StoreError(
                    f"{share}: cut its work otherwise (batches of {theirs.get('size')} in "
                    f"{theirs.get('precision')}, not of {plan.get('size')} in "
                    f"{plan.get('precision')}); where shards share no disk, give batch_size "
                    "and precision"
                )
            for number, file in part_files(share).items():
                if number in self.parts or number >= len(plan["chunks"]):
                    continue
                try:
                    part = read_part(file)
                    if part.names != plan["chunks"][number]:
                        raise ValueError("another chunk")
                except StoreError:
                    raise
                except Exception:
                    self._put_aside(file)
                    continue
                _link(file, self.folder / "parts" / file.name)
                self.parts[number] = part
        if len(self.parts) < len(plan["chunks"]):
            for share in shares(self.folder):
                what = f"shard {share.name.replace('-of-', '/')} of this run"
                FolderLock(share, what).refuse_taken()

    def add(self, number: int, rows: list[Row], delta: np.ndarray, scale_mv: np.ndarray) -> None:
        """Keep one finished chunk of cases without further tables; see :meth:`keep`.

        Raises:
            StoreError: rows and arrays disagree, or it cannot be written.
        """
        try:
            part = Part.of(rows, delta, scale_mv)
        except ValueError as error:
            raise StoreError(f"chunk {number}: {error}") from None
        self.keep(number, part)

    def keep(self, number: int, part: Part) -> None:
        """Keep one finished chunk.

        Raises:
            StoreError: it cannot be written; earlier chunks are untouched.
            ValueError: a row is none of the table of cases.
        """
        for row in part.rows:
            self.cases.check(row)
        write_atomic(self.folder / "parts" / part_name(number), part.packed())
        self.parts[number] = part
        self._behind = True

    def rows(self) -> list[Row]:
        """Rows of all cases so far, in chunk order."""
        return [row for number in sorted(self.parts) for row in self.parts[number].rows]

    def beside(self) -> Beside:
        """Rows of the other tables so far, in chunk order."""
        return Beside.joined(self.parts[number].beside for number in sorted(self.parts))

    def export(self, final: bool = False) -> None:
        """Write ``cases.csv`` and the perturbations; while the run goes on, where they are due."""
        for name, write, period in (
            ("cases", self._export_cases, 0.0),
            ("perturbations", self._export_perturbations, EXPORT_PERIOD),
        ):
            started = time.monotonic()
            if final or started >= self._due.get(name, 0.0):
                write()
                ended = time.monotonic()
                # A table of thousands of cases takes long to write, and is written less often.
                self._due[name] = ended + max(period, (ended - started) / EXPORT_SHARE)

    def _export_cases(self) -> None:
        write_csv(self.folder / "cases.csv", self.rows(), self.cases)
        self._behind = False

    def is_exported(self) -> bool:
        """Whether ``cases.csv`` holds all rows of the parts, as they were exported."""
        try:
            found = (self.folder / "cases.csv").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False
        return found == self.cases.text(self.rows())

    def _export_perturbations(self) -> None:
        parts = [self.parts[n] for n in sorted(self.parts) if len(self.parts[n].delta)]
        empty = {"case_id": (0,), "delta": (0, 0), "scale_mv": (0,)}

        def write(file: IO[bytes]) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for key in PART_KEYS:
                    arrays = [getattr(part, key) for part in parts] or [
                        np.zeros(empty[key], "U1" if key == "case_id" else np.float32)
                    ]
                    # A fixed date: the same results are the same bytes.
                    entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                    with archive.open(entry, "w", force_zip64=True) as member:
                        _write_array(member, arrays)

        write_atomic(self.folder / "perturbations.npz", write)

    def forget_failed(self) -> int:
        """Take chunks with failed cases for not done, so that they are tried again; their cases."""
        broken = [
            number
            for number, part in self.parts.items()
            if any(row["status"] == "failed" for row in part.rows)
        ]
        return sum(len(self.parts.pop(number).rows) for number in broken)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; {} where there is none."""
        return read_object(self.folder / name)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the run, atomically."""
        write_atomic(self.folder / name, json.dumps(content, indent=1, default=str) + "\n")


def _write_array(file: IO[bytes], arrays: Sequence[np.ndarray]) -> None:
    """Write arrays one below the other as one ``.npy``, without a copy of them all in memory."""
    dtype = np.result_type(*arrays)
    shape = (sum(len(a) for a in arrays), *arrays[0].shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for array in arrays:
        file.write(np.ascontiguousarray(array, dtype).tobytes())


def shares(folder: Path) -> list[Path]:
    """Folders of the shares of a split run, in order."""
    places = [p for p in (folder / SHARDS).glob("*-of-*") if p.is_dir()]
    return sorted(places, key=lambda p: (len(p.name), p.name))


def is_complete(folder: Path) -> bool:
    """Whether every chunk of a split run is stored, in its folder or in those of its shares."""
    chunks = read_object(folder / "plan.json").get("chunks")
    if not isinstance(chunks, list):
        return False
    stored = {n for place in (folder, *shares(folder)) for n in part_files(place)}
    return stored >= set(range(len(chunks)))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no such names."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        scratch.unlink(missing_ok=True)
        try:
            os.link(source, scratch)
        except OSError:
            shutil.copyfile(source, scratch)
        os.replace(scratch, target)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{target}: cannot be written ({error.strerror})") from None


def success_pairs(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Attacked rows (``ok`` or ``failed``) by ``A>N``, in order of appearance."""
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] != "skipped":
            pairs.setdefault(f"{row['source']}>{row['target']}", []).append(row)
    return pairs
