"""Results on disk: finished chunks as atomic parts, exported to the contract's files.

A part is written under another name, synced and renamed, so it is there whole or not at all;
killing a run loses the chunk in flight and nothing else. ``cases.csv``, ``perturbations.npz`` and
``summary.json`` are exports of the parts. A run that is split over machines has a folder of the
same kind for each share in ``shards/``, whose parts the run's own folder takes over.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ecgadv.errors import BusyError, StoreError
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

EXPORT_SHARE = 0.005
"""Share of a run's time that each kind of export may take while the run goes on."""

SHARDS = "shards"
"""Folder of the shares of a split run, each named like ``1-of-4``."""

PART_KEYS = ("case_id", "delta", "scale_mv")


def write_atomic(path: Path, content: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Replace a file so that a reader sees the old or the new content, never a mixture.

    The content is on the disk when this returns: file and folder are synced.

    Args:
        path: the file.
        content: bytes, a text, or a function that writes to an open file.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(scratch, "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from None


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems sync no folders; a full or broken disk is said.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


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


class FolderLock:
    """A folder for one process at a time, on every machine that sees it.

    The system releases the lock with its process, so one that was killed leaves none behind. Where
    the file system has no such locks, a file that names the owner takes their place, and one
    whose owner is gone from this machine is removed.

    Args:
        folder: made where it is missing.
        what: completes "another process (…) is working on".
        name: of the lock file.
    """

    def __init__(self, folder: Path, what: str = "this run", name: str = ".lock") -> None:
        self.folder = folder
        self.what = what
        self.name = name
        self._lock: BaseFileLock | None = None

    def acquire(self, timeout: float = 0.0) -> FolderLock:
        """Take the lock.

        Raises:
            BusyError: another process has it and keeps it for ``timeout`` seconds.
            StoreError: the folder cannot be written.
        """
        from filelock import FileLock, SoftFileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = FileLock(self.folder / self.name)
                self._lock.acquire(timeout=timeout)
            except NotImplementedError:
                self._lock = SoftFileLock(self.folder / f"{self.name}.soft")
                self._lock.acquire(timeout=timeout)
        except Timeout:
            raise BusyError(
                f"{self.folder}: another process{self._owner()} is working on {self.what}"
            ) from None
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror})") from None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        # On a full disk the lock holds without a note of its owner.
        with contextlib.suppress(StoreError):
            write_atomic(self.folder / f"{self.name}.by", json.dumps(owner))
        return self

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def is_taken(self) -> bool:
        """Whether a process has the lock now; False where the folder cannot tell."""
        if not (self.folder / self.name).is_file():
            return False
        from filelock import FileLock, Timeout

        probe = FileLock(self.folder / self.name)
        try:
            probe.acquire(timeout=0)
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return False
        probe.release()
        return False

    def _owner(self) -> str:
        try:
            owner = json.loads((self.folder / f"{self.name}.by").read_text(encoding="utf-8"))
            return f" (pid {owner['pid']} on {owner['host']}, since {owner['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass
class RunStore:
    """A run's folder while the run goes on.

    Attributes:
        folder: absolute path.
        parts: chunk number -> its rows and arrays, as read or written.
        set_aside: damaged parts that were found, under their new names.
    """

    folder: Path
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)
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
        self._lock = FolderLock(self.folder).acquire()
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
                self.parts[number] = _read_part(file)
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
            if part is not None and [row["case_id"] for row in part["rows"]] != chunk:
                del self.parts[number]
                self._put_aside(self.folder / "parts" / _part_name(number))
        if not is_share:
            self._take_over(plan)
        return plan

    @staticmethod
    def _stored_plan(folder: Path, fresh: Mapping[str, Any]) -> dict[str, Any] | None:
        file = folder / "plan.json"
        if not file.is_file():
            return None
        stored = _json(file)
        if stored.get("identity") != fresh["identity"]:
            raise StoreError(
                f"{folder}: holds results of another configuration, data set, victim or "
                "version; use resume=false or another folder"
            )
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
            if theirs is not None and theirs != plan:
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
                    part = _read_part(file)
                    rows = [row["case_id"] for row in part["rows"]]
                    if rows != plan["chunks"][number]:
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
                lock = FolderLock(share, f"shard {share.name.replace('-of-', '/')} of this run")
                if lock.is_taken():
                    raise BusyError(
                        f"{share}: another process{lock._owner()} is working on {lock.what}"
                    )

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
        write_atomic(self.folder / "parts" / _part_name(number), buffer.getvalue())
        self.parts[number] = part
        self._behind = True

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far, in chunk order."""
        return [row for number in sorted(self.parts) for row in self.parts[number]["rows"]]

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
        write_csv(self.folder / "cases.csv", self.rows(), CASE_COLUMNS)
        self._behind = False

    def _export_perturbations(self) -> None:
        parts = [self.parts[n] for n in sorted(self.parts) if len(self.parts[n]["delta"])]
        empty = {"case_id": (0,), "delta": (0, 0), "scale_mv": (0,)}

        def write(file: IO[bytes]) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for key in PART_KEYS:
                    arrays = [part[key] for part in parts] or [
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
            if any(row["status"] == "failed" for row in part["rows"])
        ]
        return sum(len(self.parts.pop(number)["rows"]) for number in broken)

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; {} where there is none."""
        return _json(self.folder / name)

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


def _part_name(number: int) -> str:
    return f"part-{number:06d}.npz"


def part_files(folder: Path) -> dict[int, Path]:
    """Chunk number -> part, of a run's folder."""
    files = sorted((folder / "parts").glob("part-*.npz"))
    return {int(f.stem.split("-")[1]): f for f in files if f.stem.split("-")[1].isdigit()}


def shares(folder: Path) -> list[Path]:
    """Folders of the shares of a split run, in order."""
    places = [p for p in (folder / SHARDS).glob("*-of-*") if p.is_dir()]
    return sorted(places, key=lambda p: (len(p.name), p.name))


def is_complete(folder: Path) -> bool:
    """Whether every chunk of a split run is stored, in its folder or in those of its shares."""
    chunks = _json(folder / "plan.json").get("chunks")
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


def _read_part(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror})") from None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        part: dict[str, Any] = {k: stored[k] for k in PART_KEYS}
        part["rows"] = json.loads(str(stored["rows"]))
    if len({len(part[k]) for k in PART_KEYS}) != 1 or not isinstance(part["rows"], list):
        raise ValueError("rows and arrays disagree")
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
        return self.inputs_of(self.case_ids.tolist())

    def inputs_of(self, case_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Standardised records (K, n) float32 of some cases, and (K,) their own samples.

        Raises:
            StoreError: the run does not say where its recordings are, or they have changed.
        """
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
        rows = [records.index(known[str(case)]) for case in case_ids]
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


def _mapped(file: Path, name: str) -> np.ndarray:
    """An array of an ``.npz`` that is read where it is looked at (not checked), if plain."""
    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
        info = archive.getinfo(f"{name}.npy")
        version = np.lib.format.read_magic(member)
        if info.compress_type != zipfile.ZIP_STORED or version != (1, 0):
            with np.load(file, allow_pickle=False) as stored:
                return np.asarray(stored[name])
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        inside = member.tell()
    with open(file, "rb") as stream:
        stream.seek(info.header_offset + 26)
        sizes = stream.read(4)
    start = (
        info.header_offset + 30 + sum(int.from_bytes(sizes[k : k + 2], "little") for k in (0, 2))
    )
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "c", start + inside, shape)


def load_run(folder: str | Path, mapped: bool = False) -> Run:
    """Read a run's folder.

    Args:
        folder: where it lies.
        mapped: read perturbations only where they are looked at, without checking them for damage;
            for a few of thousands.

    Raises:
        StoreError: it is no run, or one of its files is damaged.
    """
    place = Path(folder)
    if not (place / "cases.csv").is_file():
        raise StoreError(f"{place}: no cases.csv, so this is not the folder of a run")
    try:
        with np.load(place / "perturbations.npz", allow_pickle=False) as stored:
            kept = [key for key in PART_KEYS if not (mapped and key == "delta")]
            arrays = {key: stored[key] for key in kept}
        if mapped:
            arrays["delta"] = _mapped(place / "perturbations.npz", "delta")
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
        content = json.loads(file.read_text(encoding="utf-8"))
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
