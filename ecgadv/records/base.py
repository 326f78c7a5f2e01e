"""What every data source yields: a :class:`RecordSet`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ecgadv.errors import DataError, RecordError
from ecgadv.records.preprocessing import FS, N_SAMPLES, prepare

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
    """One ECG.

    Attributes:
        id: the record's name in its data source.
        signal: (samples,) float32, in mV; of several leads (samples, leads).
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
        x: (B, n) or (B, n, leads) float32, standardised and zero-padded.
        lengths: (B,) int64, each record's own samples within ``n``.
        scale_mv: (B,) or (B, leads) float32, what one unit of ``x`` is in mV: the record's standard
            deviation.
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
        samples: (total,) or (total, leads) all signals end to end, any numeric type; may be
            memory-mapped.
        offsets: (R + 1,) int64; record i is ``samples[offsets[i]:offsets[i + 1]]``.
        gain: units of ``samples`` per mV.
        fs: sampling rate in Hz.
        digest: sha256 over ids, labels and signals.
        skipped: record name -> why it could not be read.
        notes: what is worth saying of how they were read, a line each.
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
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels) or len(self.offsets) != len(self.ids) + 1:
            raise DataError(f"{self.name}: ids, labels and offsets do not agree in length")
        if len(set(self.ids)) != len(self.ids):
            twice = next(i for i in self.ids if self.ids.count(i) > 1)
            raise DataError(f"{self.name}: record {twice} is listed twice")
        if not self.fs > 0:
            raise DataError(f"{self.name}: records are at {self.fs} Hz, that is no sampling rate")

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

    @property
    def leads(self) -> int:
        """Leads of every record."""
        return 1 if self.samples.ndim == 1 else int(self.samples.shape[1])

    def index(self, record_id: str) -> int:
        """Position of a record by name; raises :class:`DataError` where there is none."""
        try:
            return self.ids.index(record_id)
        except ValueError:
            raise DataError(f"{self.name}: no record {record_id}") from None

    def unusable(self, index: int, n: int = N_SAMPLES) -> str:
        """Why the first ``n`` samples of a record cannot be used; "" where they can."""
        try:
            prepare(self[index].signal, n, self.leads)
        except RecordError as error:
            return str(error)
        return ""

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        n: int = N_SAMPLES,
        standardise: str = "lead",
    ) -> Batch:
        """Classifier inputs of some records.

        Args:
            indices: positions of the records.
            n: samples of an input.
            standardise: see :func:`ecgadv.records.preprocessing.prepare`.

        Raises:
            RecordError: one of them is a flat line or empty; the message names it.
        """
        leads = self.leads
        each = () if leads == 1 else (leads,)
        x = np.zeros((len(indices), n, *each), dtype=np.float32)
        lengths = np.zeros(len(indices), dtype=np.int64)
        scale = np.zeros((len(indices), *each), dtype=np.float32)
        for row, index in enumerate(indices):
            record = self[int(index)]
            try:
                x[row], lengths[row], scale[row] = prepare(record.signal, n, leads, standardise)
            except RecordError as error:
                raise RecordError(f"record {record.id}: {error}") from None
        ids = [self.ids[int(i)] for i in indices]
        return Batch(ids, x, lengths, scale, self.labels[np.asarray(indices, dtype=np.int64)])

    def at(self, fs: int) -> RecordSet:
        """The same recordings at another sampling rate, in mV."""
        if fs == self.fs:
            return self
        from ecgadv.records.conversion import resample

        records = [(r.id, r.label, resample(r.signal, self.fs, fs)) for r in self]
        return RecordSet.pack(self.name, records, fs=fs, skipped=self.skipped, notes=self.notes)

    @staticmethod
    def pack(
        name: str,
        records: Sequence[tuple[str, str, np.ndarray]],
        *,
        gain: float = 1.0,
        fs: int = FS,
        skipped: dict[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> RecordSet:
        """Build a set from (id, label, signal) triples; signals in units of 1/gain mV."""
        signals = [np.asarray(signal) for _, _, signal in records]
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in signals])]).astype(np.int64)
        samples = np.concatenate(signals) if signals else np.zeros(0, np.float32)
        return RecordSet(
            name,
            [i for i, _, _ in records],
            label_array([label for _, label, _ in records]),
            samples,
            offsets,
            gain=gain,
            fs=fs,
            digest=content_digest(records, gain),
            skipped=dict(skipped or {}),
            notes=tuple(notes),
        )


def label_array(labels: Sequence[str]) -> np.ndarray:
    """(R,) labels as text, eight characters wide or as wide as the longest."""
    return np.array(labels, dtype=f"U{max([8, *map(len, labels)])}")


def content_digest(records: Sequence[tuple[str, str, np.ndarray]], gain: float) -> str:
    """sha256 over names, labels and samples: equal for equal content, whatever held it."""
    digest = hashlib.sha256(f"gain={gain:g}".encode())
    for record_id, label, signal in records:
        digest.update(f"\n{record_id},{label},{signal.dtype.str},{signal.size}\n".encode())
        digest.update(np.ascontiguousarray(signal).tobytes())
    return digest.hexdigest()
