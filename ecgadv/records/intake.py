"""Recordings on their way into a record set: converted, labelled, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ecgadv.errors import DataError
from ecgadv.records import conversion, labels
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.conversion import NO_SCALE, amplitude, zero_ends
from ecgadv.records.preprocessing import FS

SMALLEST_MV, LARGEST_MV = 0.01, 60.0
"""An ECG moves more than the first within its liveliest seconds and less than the second within
most: see :func:`ecgadv.records.conversion.amplitude`."""

LONG_ZEROS = 1.0
"""Seconds of exact zeros at an end of a recording that look like padding."""

MISSING_MARK = -32768
"""The lowest number of 16 bits, which marks a missing sample in most recorders."""

MANY_MISSING = 0.01
"""Share of missing samples of a record that is worth a note."""


@dataclass
class Ends:
    """What is worth saying of recordings as they were stored: zeros at the ends, gaps."""

    total: int = 0
    padded: list[str] = field(default_factory=list)
    gaps: list[tuple[float, str]] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)

    def look(self, name: str, signal: np.ndarray, fs: float) -> None:
        """Look at one recording, (samples,) or (samples, leads) at ``fs`` Hz."""
        self.total += 1
        if max(zero_ends(signal)) > LONG_ZEROS * fs:
            self.padded.append(name)
        missing = 1 - float(np.isfinite(signal).mean()) if signal.size else 0.0
        if missing > MANY_MISSING:
            self.gaps.append((missing, name))
        if (signal == MISSING_MARK).any():
            self.marked.append(name)

    def notes(self, trim_zeros: bool | None) -> list[str]:
        """The notes; ``trim_zeros`` as the source was told, None where it has no such option."""
        said = []
        if self.padded and not trim_zeros:
            remedy = "; data.trim_zeros=true cuts such padding off" if trim_zeros is False else ""
            said.append(
                f"{len(self.padded)} of {self.total} records ({_few(self.padded)}) begin or end "
                f"with more than {LONG_ZEROS:g} s of exact zeros, which count as signal{remedy}"
            )
        if self.gaps:
            worst, name = max(self.gaps)
            said.append(
                f"{len(self.gaps)} of {self.total} records lack more than {MANY_MISSING:.0%} of "
                f"their samples ({name}: {worst:.0%}); missing samples count as the record's mean"
            )
        if self.marked:
            said.append(
                f"{len(self.marked)} of {self.total} records ({_few(self.marked)}) hold the value "
                f"{MISSING_MARK}, which counts as signal; where it marks missing samples, write NaN"
            )
        return said


@dataclass
class Intake:
    """The records of one source as they come in.

    Attributes:
        name: of the source.
        rate: sampling rate of the result in Hz.
        label_map: label of the file -> class.
        classes: of the classifier.
        start: seconds left out at the beginning of every record.
        trim_zeros: whether exact zeros at both ends are cut off.
        units: of all records, or None where each has its own.
    """

    name: str
    rate: int = FS
    label_map: labels.LabelMap | None = None
    classes: Sequence[str] = CLASSES
    start: float = 0.0
    trim_zeros: bool = False
    units: str | None = None
    records: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    ends: Ends = field(default_factory=Ends)

    def letter(self, label: str) -> str:
        """The class of a label; raises :class:`RecordError` where it is none."""
        return labels.check_label(label, self.label_map, self.classes)

    def convert(self, signal: np.ndarray, fs: float, units: str) -> np.ndarray:
        """A recording in mV at the classifier's rate; see :func:`conversion.convert`."""
        return conversion.convert(signal, fs, units, self.rate, self.start, self.trim_zeros)

    def add(self, record: str, letter: str, signal: np.ndarray) -> None:
        """Keep a converted recording."""
        self.records.append((record, letter, signal))

    def finish(self, where: str, notes: Sequence[str] = ()) -> RecordSet:
        """The set of all that came in.

        Args:
            where: begins an error about their unit.
            notes: of the source itself.

        Raises:
            DataError: most records have an amplitude that no ECG has.
        """
        said = list(notes)
        if self.units is not None and conversion.is_unscaled(self.units):
            said.append(
                f"data.units={NO_SCALE}: the values have no scale, whatever is given in mV is in "
                "units of the file"
            )
        else:
            signals = [(record, signal) for record, _, signal in self.records]
            odd, notes_of_small = check_amplitudes(signals, self.rate, where)
            said += notes_of_small
            self.skipped |= odd
            self.records = [r for r in self.records if r[0] not in odd]
        said += self.ends.notes(self.trim_zeros)
        return RecordSet.pack(
            self.name, self.records, fs=self.rate, skipped=self.skipped, notes=said
        )


def longer_than(records: RecordSet, n: int, has_start: bool) -> str:
    """The note that records are longer than a classifier's input; "" where none is."""
    long = int((records.lengths > n).sum())
    if not long:
        return ""
    remedy = "; data.start=SECONDS takes a later part" if has_start else ""
    return (
        f"{long} of {len(records)} records are longer than the {n / records.fs:g} s that the "
        f"victim reads: only their beginning is read{remedy}"
    )


def few_skipped(skipped: Mapping[str, str]) -> str:
    """The first reason why a record cannot be used, with its name."""
    name, why = next(iter(skipped.items()))
    return f"{name}: {why}"


def check_amplitudes(
    signals: Sequence[tuple[str, np.ndarray]],
    fs: float,
    where: str,
    remedy: str = f"say their unit with data.units=… (V, mV, uV, nV, or {NO_SCALE} for values "
    "without a scale)",
) -> tuple[dict[str, str], list[str]]:
    """Records that no heart makes so large, and why; of a whole set it is the unit that is wrong.

    Args:
        signals: (name, signal in mV) of all records.
        fs: their sampling rate in Hz.
        where: begins the error: the option, and what says the unit.
        remedy: ends it: what to do.

    Returns:
        Those too large, with the reason; and a note where some are too small, which are kept.

    Raises:
        DataError: more than half of the records are too large, or too small, for an ECG.
    """
    found = {name: amplitude(signal, fs) for name, signal in signals}
    known = {name: both for name, both in found.items() if both[0] == both[0]}
    large = {name: usual for name, (usual, _) in known.items() if usual > LARGEST_MV}
    small = {name: lively for name, (_, lively) in known.items() if lively < SMALLEST_MV}
    for amplitudes in (list(large.values()), list(small.values())):
        if 2 * len(amplitudes) > len(known):
            raise DataError(
                f"{where}: {len(amplitudes)} of {len(found)} records have an amplitude of about "
                f"{float(np.median(amplitudes)):.3g} mV, which no ECG has; {remedy}"
            )
    notes = []
    if small:
        notes.append(
            f"{len(small)} of {len(found)} records ({_few(list(small))}) move by less than "
            f"{SMALLEST_MV:g} mV in their liveliest second; if their unit is another one, say "
            "data.units"
        )
    odd = {
        name: f"its amplitude is about {usual:.3g} mV, which no ECG has (data.units)"
        for name, usual in large.items()
    }
    return odd, notes


def _few(names: Sequence[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
