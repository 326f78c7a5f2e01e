"""What every data source yields: a :class:`RecordSet`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ecgadv.errors import DataError, RecordError
from ecgadv.records.preprocessing import FS, N_SAMPLES, clean, is_usable_scale, preprocess

CLASSES = ("A", "N", "O", "~")
"""Class letters in index order: atrial fibrillation, normal, other rhythm, noise."""

NOISE_NAME = "noise"
"""How ``~`` is spelled where a shell, a file system or MLflow would misread it."""


def class_name(letter: str) -> str:
    """The spelling of a class that is safe in file names and on command lines."""
    return NOISE_NAME if letter == "~" else letter


def class_letter(name: str) -> str:
    """The inverse of :func:`class_name`; letters pass through."""
    return "~" if name == NOISE_NAME else name


@dataclass(frozen=True)
class Record:
    """One single-lead ECG.

    Attributes:
        id: the record's name in its data source.
        signal: (samples,) float32, in mV.
        fs: sampling rate in Hz.
        label: class letter, or "" where it is not known.
    """

    id: str
    signal: np.ndarray
    fs: int
    label: str


@dataclass(frozen=True)
class Batch:
    """Records as classifier inputs.

    Attributes:
        ids: B record names.
        x: (B, n) float32, standardised and zero-padded.
        lengths: (B,) int64, each record's own samples within ``n``.
        scale_mv: (B,) float32, each record's standard deviation in mV.
        labels: (B,) class letters.
    """

    ids: list[str]
    x: np.ndarray
    lengths: np.ndarray
    scale_mv: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class RecordSet:
    """Recordings of one data source, in record order, stored end to end.

    Attributes:
        name: the data source's name (``cinc2017``, ``synthetic``, …).
        ids: record names, unique.
        labels: (R,) class letters, "" where not known.
        samples: (total,) all signals end to end, any numeric type; may be memory-mapped.
        offsets: (R + 1,) int64; record i is ``samples[offsets[i]:offsets[i + 1]]``.
        gain: units of ``samples`` per mV.
        fs: sampling rate in Hz, that of the classifier input.
        digest: sha256 over ids, labels and signals.
        skipped: record name -> why it could not be read.
    """

    name: str
    ids: list[str]
    labels: np.ndarray
    samples: np.ndarray
    offsets: np.ndarray
    gain: float = 1.0
    fs: int = FS
    digest: str = ""
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels) or len(self.offsets) != len(self.ids) + 1:
            raise DataError(f"{self.name}: ids, labels and offsets do not agree in length")
        if len(set(self.ids)) != len(self.ids):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise DataError(f"{self.name}: record {twice} is listed twice")
        if self.fs != FS:
            raise DataError(
                f"{self.name}: records are at {self.fs} Hz, the classifier needs {FS} Hz"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        signal = np.asarray(self.samples[self.offsets[index] : self.offsets[index + 1]])
        signal = (signal / self.gain).astype(np.float32)
        return Record(self.ids[index], signal, self.fs, str(self.labels[index]))

    @property
    def lengths(self) -> np.ndarray:
        """(R,) samples of each record."""
        return np.diff(self.offsets)

    def index(self, record_id: str) -> int:
        """Position of a record by name; raises :class:`DataError` where there is none."""
        try:
            return self.ids.index(record_id)
        except ValueError:
            raise DataError(f"{self.name}: no record {record_id}") from None

    def unusable(self, index: int) -> str:
        """Why a record cannot be attacked or classified; "" where it can."""
        try:
            preprocess(self[index].signal)
        except RecordError as error:
            return str(error)
        return ""

    def batch(self, indices: Sequence[int] | np.ndarray, n: int = N_SAMPLES) -> Batch:
        """Classifier inputs of some records.

        Raises:
            RecordError: one of them is a flat line or empty; the message names it.
        """
        x = np.zeros((len(indices), n), dtype=np.float32)
        lengths = np.zeros(len(indices), dtype=np.int64)
        scale = np.zeros(len(indices), dtype=np.float32)
        for row, index in enumerate(indices):
            record = self[int(index)]
            try:
                values = clean(record.signal, n)
                spread = values.std()
                if not is_usable_scale(values, spread):
                    raise RecordError("flat line: the recording's standard deviation is 0")
            except RecordError as error:
                raise RecordError(f"record {record.id}: {error}") from None
            x[row, : values.size] = (values - values.mean()) / spread
            lengths[row], scale[row] = values.size, spread
        ids = [self.ids[int(i)] for i in indices]
        return Batch(ids, x, lengths, scale, self.labels[np.asarray(indices, dtype=np.int64)])

    @staticmethod
    def pack(
        name: str,
        records: Sequence[tuple[str, str, np.ndarray]],
        *,
        gain: float = 1.0,
        fs: int = FS,
        skipped: dict[str, str] | None = None,
    ) -> RecordSet:
        """Build a set from (id, label, signal) triples; signals in units of 1/gain mV."""
        signals = [np.asarray(signal) for _, _, signal in records]
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in signals])]).astype(np.int64)
        samples = np.concatenate(signals) if signals else np.zeros(0, np.float32)
        return RecordSet(
            name,
            [i for i, _, _ in records],
            np.array([label for _, label, _ in records], dtype="U8"),
            samples,
            offsets,
            gain=gain,
            fs=fs,
            digest=content_digest(records, gain),
            skipped=dict(skipped or {}),
        )


def content_digest(records: Sequence[tuple[str, str, np.ndarray]], gain: float) -> str:
    """sha256 over names, labels and samples: equal for equal content, whatever held it."""
    digest = hashlib.sha256(f"gain={gain:g}".encode())
    for record_id, label, signal in records:
        digest.update(f"\n{record_id},{label},{signal.dtype.str},{signal.size}\n".encode())
        digest.update(np.ascontiguousarray(signal).tobytes())
    return digest.hexdigest()
