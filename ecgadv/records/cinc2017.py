"""PhysioNet/CinC Challenge 2017, public training set, as a folder or as the zip itself."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath

import numpy as np

from ecgadv.errors import DataError, RecordError
from ecgadv.options import Name, Place
from ecgadv.records import cache, files
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.conversion import Start, seconds, window
from ecgadv.records.intake import Ends, check_amplitudes, few_skipped
from ecgadv.records.labels import LabelTable, label_table
from ecgadv.records.preprocessing import FS

LABEL_FILES = ("REFERENCE-v3.csv", "REFERENCE.csv")
"""Revised labels (version 3) first; the original ones are accepted, and the difference is said."""

URL = "https://physionet.org/files/challenge-2017/1.0.0/training2017.zip"
LABELS_URL = "https://physionet.org/files/challenge-2017/1.0.0/REFERENCE-v3.csv"

N_RECORDS = 8528
"""Records of the public training set."""

_UNITS_PER_MV = 1000.0

_INVALID = -32768
"""What WFDB's 16-bit formats hold in place of a missing sample."""


class _Tree(ABC):
    """Read access to PhysioNet's layout, wherever it lies."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files: dict[str, str] = {}

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Bytes of the file called ``name`` (no folder)."""

    @abstractmethod
    def key(self) -> str:
        """A digest of all contents, cheap enough to take at every start."""


class _Zip(_Tree):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        try:
            self.archive = zipfile.ZipFile(place)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"data.root={place} is not a readable zip file: {error}") from None
        self.infos: dict[str, zipfile.ZipInfo] = {}
        for info in self.archive.infolist():
            if info.is_dir():
                continue
            name = PurePosixPath(info.filename).name
            twin = self.infos.setdefault(name, info)
            ours = name.endswith((".mat", ".hea", ".csv"))
            if ours and (twin.CRC, twin.file_size) != (info.CRC, info.file_size):
                raise DataError(
                    f"data.root={place} holds two different files {name}, {twin.filename} and "
                    f"{info.filename}; give one of their folders"
                )
        self.files = {name: info.filename for name, info in self.infos.items()}
        # PhysioNet serves the revised labels beside the archive, not in it.
        beside = place.with_name(LABEL_FILES[0])
        self.labels = b""
        if LABEL_FILES[0] not in self.files and beside.is_file():
            self.labels = beside.read_bytes()
            self.files[LABEL_FILES[0]] = str(beside)

    def read(self, name: str) -> bytes:
        if name not in self.infos:
            return self.labels
        try:
            return self.archive.read(self.infos[name])
        except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            raise RecordError(f"unreadable in the zip: {error}") from None
        except Exception as error:  # zlib.error is not an OSError
            raise RecordError(f"damaged in the zip: {error}") from None

    def key(self) -> str:
        # The central directory holds a CRC-32 of every file, so contents need not be read.
        rows = sorted(f"{n}:{i.CRC:08x}:{i.file_size}" for n, i in self.infos.items())
        return hashlib.sha256("\n".join(rows).encode() + self.labels).hexdigest()


class _Folder(_Tree):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        inner = place / "training2017"
        self.base = inner if inner.is_dir() else place
        names = {p.name for p in self.base.iterdir() if p.is_file()}
        self.files = {name: str(self.base / name) for name in names}
        for labels in LABEL_FILES:
            # PhysioNet serves the revised labels beside the folder, not in it.
            if labels not in names and (place / labels).is_file():
                self.files[labels] = str(place / labels)

    def read(self, name: str) -> bytes:
        try:
            return Path(self.files[name]).read_bytes()
        except OSError as error:
            raise RecordError(f"unreadable: {error.strerror}") from None

    def key(self) -> str:
        digest = hashlib.blake2b(digest_size=32)
        for name in sorted(self.files):
            if name.endswith((".mat", ".hea", ".csv")):
                try:
                    content = Path(self.files[name]).read_bytes()
                except OSError:
                    content = b"unreadable"
                digest.update(f"{name}:{len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()


def _open(root: Path) -> _Tree:
    if not root.exists():
        raise DataError(
            f"data.root={root} does not exist; give the folder or the zip of the CinC 2017 "
            f"training set ({URL})"
        )
    why = files.pointer(root) if root.is_file() else ""
    if why:
        raise DataError(f"data.root={root} {why}")
    return _Folder(root) if root.is_dir() else _Zip(root)


def _labels(tree: _Tree, file: str | None) -> tuple[str, LabelTable]:
    names = (file,) if file else LABEL_FILES
    name = next((n for n in names if n in tree.files), None)
    if name is None:
        raise DataError(f"{tree.place}: no label file ({' or '.join(names)}) beside the records")
    content = tree.read(name)
    why = files.pointer_in(content)
    if why:
        raise DataError(f"{tree.place}: {name} {why}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{tree.place}: {name} is not a text file") from None
    table = label_table(text, Path(name), str(tree.place))
    if name != LABEL_FILES[0]:
        print(
            f"note: labels from {name}, not {LABEL_FILES[0]}; the revision (version 3) changed the "
            "class of some records, so scores and selections differ from those with it",
            file=sys.stderr,
        )
    return name, table


def read_header(text: str) -> tuple[int, int, float]:
    """Sampling rate (Hz), samples and units per mV of a one-signal WFDB header.

    Raises:
        RecordError: no header, more than one signal, or a rate other than 300 Hz.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        first = lines[0].split()
        signals, fs, samples = int(first[1]), float(first[2].split("/")[0]), int(first[3])
        gain = float(lines[1].split()[2].split("/")[0].split("(")[0] or 0)
    except (IndexError, ValueError):
        raise RecordError("its .hea file is not a WFDB header") from None
    if signals != 1:
        raise RecordError(f"its header announces {signals} signals, CinC 2017 has one")
    if fs != FS:
        raise RecordError(
            f"sampled at {fs:g} Hz, CinC 2017 is at {FS} Hz (use data=wfdb to resample)"
        )
    return int(fs), samples, gain or _UNITS_PER_MV


def read_mat(content: bytes) -> np.ndarray:
    """(samples,) int16 of a MATLAB v4 file with the variable ``val``.

    Raises:
        RecordError: truncated, or not such a file.
    """
    from scipy.io import loadmat

    try:
        value = loadmat(io.BytesIO(content), variable_names=["val"])["val"]
    except KeyError:
        raise RecordError("its .mat file has no variable 'val'") from None
    except Exception as error:  # scipy raises many kinds on damaged files
        raise RecordError(f"its .mat file is truncated or damaged ({error})") from None
    value = np.asarray(value)
    if value.dtype.kind not in "iuf" or value.size == 0:
        raise RecordError("its .mat file holds no signal")
    if value.ndim == 2 and 1 not in value.shape:
        raise RecordError(f"its .mat file holds {value.shape[0]} signals, CinC 2017 has one")
    return value.reshape(-1)


def _read(tree: _Tree, table: LabelTable, start: float) -> RecordSet:
    records: list[tuple[str, str, np.ndarray]] = []
    skipped: dict[str, str] = {}
    ends = Ends()
    for record, label in table.rows.items():
        try:
            if record in table.several:
                raise RecordError(table.several[record])
            if label not in CLASSES:
                raise RecordError(f"label {label!r} is not one of {', '.join(CLASSES)}")
            signal = _signal(tree, record)
            ends.look(record, signal, FS)
            records.append((record, label, window(signal, FS, start)))
        except RecordError as error:
            skipped[record] = str(error)
    if len({s.dtype for _, _, s in records}) > 1:
        records = [(i, label, s.astype(np.float32)) for i, label, s in records]
    in_mv = [(record, signal / _UNITS_PER_MV) for record, _, signal in records]
    odd, too_small = check_amplitudes(
        in_mv, FS, f"data.root={tree.place}", "correct the gain in the .hea files"
    )
    return RecordSet.pack(
        "cinc2017",
        [record for record in records if record[0] not in odd],
        gain=_UNITS_PER_MV,
        skipped=skipped | odd,
        notes=[*table.notes, *too_small, *ends.notes(None)],
    )


def _signal(tree: _Tree, record: str) -> np.ndarray:
    """(samples,) int16, or float32 with NaN where samples are missing, 1000 units per mV."""
    if f"{record}.mat" not in tree.files:
        raise RecordError("its .mat file is missing")
    gain, samples, said = _UNITS_PER_MV, None, set()
    if f"{record}.hea" in tree.files:
        header = tree.read(f"{record}.hea")
        said.add(files.pointer_in(header))
        if said == {""}:
            _, samples, gain = read_header(header.decode("utf-8", "replace"))
    content = tree.read(f"{record}.mat")
    said.add(files.pointer_in(content))
    why = max(said)
    if why:
        raise RecordError(f"its file {why}")
    signal = read_mat(content)
    if samples is not None and signal.size < samples:
        raise RecordError(f"its .mat file holds {signal.size} of {samples} samples")
    invalid = signal == _INVALID
    if gain != _UNITS_PER_MV or signal.dtype.kind == "f" or invalid.any():
        signal = (signal * (_UNITS_PER_MV / gain)).astype(np.float32)
        signal[invalid] = np.nan
        return signal
    return signal.astype(np.int16)


def load(root: Place | None = None, labels: Name | None = None, start: Start = 0) -> RecordSet:
    """Read the CinC 2017 training set.

    Args:
        root: folder or zip in PhysioNet's layout; ``None`` looks into the cache folder and
            downloads there where it is absent.
        labels: name of the label file; default ``REFERENCE-v3.csv``, else ``REFERENCE.csv``.
        start: seconds, or a time such as ``30s``, left out at the beginning of every record.

    Returns:
        Records at 300 Hz, int16 with 1000 units per mV; a record that cannot be read, or that ends
        before ``start``, is in ``skipped`` with the reason, the others are read.

    Raises:
        DataError: ``root`` is missing, no zip, or without a label file or a readable record.
    """
    from ecgadv.records.download import fetch

    begin = seconds(start)
    if root:
        place = Path(root).expanduser()
    else:
        place = fetch(URL, LABELS_URL, cache.cache_root(), N_RECORDS)
    tree = _open(place)
    name, table = _labels(tree, labels)
    key = hashlib.sha256(f"{tree.key()}|{name}|{begin}".encode()).hexdigest()
    records = cache.cached("cinc2017", key, lambda: _read(tree, table, begin))
    if not len(records):
        detail = f" ({few_skipped(records.skipped)})" if records.skipped else ""
        raise DataError(f"{place}: no usable record{detail}")
    return records
