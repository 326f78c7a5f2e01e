"""One WFDB record: its header as it is written, and its leads in mV, each at its own rate."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import RecordError
from ecgadv.records import conversion
from ecgadv.records.files import refuse_pointer

_DEFAULT_UNITS = "mV"
_GAP = "~"
"""Name of a segment in which nothing was recorded."""

_MAX_DEPTH = 2
"""Headers name segments, and those name signal files: no deeper."""


@dataclass(frozen=True)
class Header:
    """What a header says of its leads.

    Attributes:
        path: of the record, without suffix.
        fs: frames a second, Hz.
        frames: of the record, 0 where the header does not say.
        names: of the leads.
        units: of the leads, as they are written.
        per_frame: samples of each lead in a frame.
        assumed_gain: leads without a gain of their own, which WFDB reads as 200 units per mV.
        assumed_fs: whether the header says no sampling rate, which WFDB reads as 250 Hz.
        segments: (name, frames) of the parts of a multi-segment record; empty for any other.
        is_variable: whether the first segment says which leads the others may have.
    """

    path: Path
    fs: float
    frames: int
    names: list[str]
    units: list[str]
    per_frame: list[int]
    assumed_gain: list[bool]
    segments: list[tuple[str, int]]
    is_variable: bool = False
    assumed_fs: bool = False


def _header_file(path: Path) -> Path:
    return path.parent / f"{path.name}.hea"


def _lines(path: Path) -> list[str]:
    """Lines of a header without comments; raises :class:`RecordError` where there is none."""
    file = _header_file(path)
    if not file.is_file():
        raise RecordError("its .hea file is missing")
    refuse_pointer(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RecordError(f"its .hea file cannot be read ({error.strerror})") from None
    # The wfdb package drops whatever is not ASCII, such as the micro sign of a unit.
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def files_of(path: Path, depth: int = _MAX_DEPTH) -> Iterator[Path]:
    """Every file that a record consists of: its header, and what this names, segments included."""
    yield _header_file(path)
    try:
        first, *others = _lines(path)
    except (RecordError, ValueError):
        return
    for line in others:
        name = line.split()[0]
        if name == _GAP:
            continue
        if "/" not in first.split()[0]:
            yield path.parent / name
        elif depth:
            yield from files_of(path.parent / name, depth - 1)


def read_header(path: Path) -> Header:
    """The header of a record.

    Args:
        path: of the record, without suffix.

    Raises:
        RecordError: missing, a pointer, or no header.
    """
    lines = _lines(path)
    with _quiet():
        import wfdb

    try:
        with _quiet():
            found: Any = wfdb.rdheader(str(path))
    except Exception as error:  # wfdb raises many kinds on damaged headers
        raise RecordError(f"its .hea file cannot be read ({first_line(error)})") from None
    fs, frames = float(found.fs or 0), int(found.sig_len or 0)
    assumed_fs = len(lines[0].split()) < 3
    if isinstance(found, wfdb.MultiRecord):
        segments = list(zip(map(str, found.seg_name), map(int, found.seg_len), strict=True))
        is_variable = bool(segments) and segments[0][1] == 0 and segments[0][0] != _GAP
        layout = next((name for name, _ in segments if name != _GAP), None)
        if layout is None:
            raise RecordError("its header names no segment with signals")
        held = sum(length for _, length in segments)
        if len(segments) != int(found.n_seg) or frames not in (0, held):
            raise RecordError(f"its segments hold {held} samples, its header announces {frames}")
        first = path.parent / layout
        if "/" in _lines(first)[0].split()[0]:
            raise RecordError(f"segment {layout}: it consists of segments itself")
        inner = read_header(first)
        return Header(
            path, fs, frames, inner.names, inner.units, inner.per_frame, inner.assumed_gain,
            segments[1:] if is_variable else segments, is_variable, assumed_fs,
        )  # fmt: skip
    signals = lines[1 : 1 + int(found.n_sig)]
    if not signals or len(signals) != int(found.n_sig):
        raise RecordError(
            f"its header announces {found.n_sig} signals and describes {len(signals)}"
        )
    written = [_gain_and_units(line) for line in signals]
    for (gain, _), read in zip(written, found.adc_gain, strict=True):
        # The wfdb package knows no capital E: 2.0E+02 would be 2.
        if gain and not np.isclose(gain, read, rtol=1e-9):
            raise RecordError(f"its header's gain {gain:g} is read as {read:g}; write it plainly")
    return Header(
        path,
        fs,
        frames,
        [str(name) if name is not None else "" for name in found.sig_name or []],
        [units for _, units in written],
        [int(count or 1) for count in found.samps_per_frame or []],
        [gain == 0 for gain, _ in written],
        [],
        assumed_fs=assumed_fs,
    )


def _gain_and_units(line: str) -> tuple[float, str]:
    """Gain, 0 where it is left out, and units of a signal's line in a header."""
    fields = line.split()
    match = re.match(
        r"(?P<gain>[+-]?[\d.]+(?:[eE][+-]?\d+)?)", fields[2] if len(fields) > 2 else ""
    )
    units = fields[2].partition("/")[2] if match is not None else ""
    return float(match["gain"]) if match is not None else 0.0, units or _DEFAULT_UNITS


def channel(names: Sequence[str], lead: int | str) -> int:
    """Position of a lead: a number is a position, a text a name (or else a position).

    Raises:
        RecordError: no such lead, or two of that name.
    """
    text = str(lead).strip()
    if not isinstance(lead, int):
        stripped = [name.strip() for name in names]
        found = [i for i, name in enumerate(stripped) if name == text]
        found = found or [i for i, name in enumerate(stripped) if name.lower() == text.lower()]
        if len(found) > 1:
            places = " and ".join(map(str, found))
            raise RecordError(
                f"it has {len(found)} leads {text!r}, at {places}; choose one by its position, "
                f"data.lead={found[0]}"
            )
        if found:
            return found[0]
    if re.fullmatch(r"-?[0-9]+", text):
        if 0 <= int(text) < len(names):
            return int(text)
        raise RecordError(f"it has {len(names)} leads, no lead {text} (counted from 0)")
    if not any(name.strip() for name in names):
        raise RecordError(
            f"it has no lead {text!r}: its {len(names)} leads have no names; choose one by its "
            "position, data.lead=0"
        )
    raise RecordError(f"it has no lead {text!r}, only {', '.join(names)}")


def same_leads(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Positions that bring a record's leads into another's order.

    Raises:
        RecordError: they are not the same leads.
    """
    if list(names) == list(wanted):
        return list(range(len(names)))
    own, other = [[name.strip().lower() for name in some] for some in (names, wanted)]
    if sorted(own) != sorted(other) or len(set(own)) != len(own):
        raise RecordError(
            f"its leads are {', '.join(names)}, those of the first record {', '.join(wanted)}; "
            "name those that all have with data.lead=[…]"
        )
    return [own.index(name) for name in other]


def read_leads(
    header: Header, channels: Sequence[int], units: str | None = None
) -> list[tuple[np.ndarray, float]]:
    """Some leads of a record in mV, with their own sampling rates.

    Args:
        header: of the record.
        channels: positions of the leads.
        units: of their samples in place of what the header says.

    Returns:
        (samples,) float64 and Hz of each lead; missing samples are NaN.

    Raises:
        RecordError: a file is missing, truncated or damaged, a unit is unknown, or a segment does
            not fit the record.
    """
    rates = [header.fs * header.per_frame[i] for i in channels]
    for rate in rates:
        conversion.check_fs(rate)
    if not header.segments:
        return list(zip(_samples(header, channels, units), rates, strict=True))
    parts: list[list[np.ndarray]] = [[] for _ in channels]
    for name, frames in header.segments:
        try:
            found = _segment(header, name, frames, channels, units)
        except RecordError as error:
            raise RecordError(f"segment {name}: {error}") from None
        for part, samples in zip(parts, found, strict=True):
            part.append(samples)
    return [(np.concatenate(part), rate) for part, rate in zip(parts, rates, strict=True)]


def _segment(
    header: Header, name: str, frames: int, channels: Sequence[int], units: str | None
) -> list[np.ndarray]:
    """The leads within one segment; NaN where it has none of that name, or is a gap."""
    gaps = [np.full(frames * header.per_frame[i], np.nan) for i in channels]
    if name == _GAP or not frames:
        return gaps
    part = read_header(header.path.parent / name)
    if part.fs != header.fs:
        raise RecordError(f"it is at {part.fs:g} Hz, the record at {header.fs:g} Hz")
    if part.frames and part.frames != frames:
        raise RecordError(f"it holds {part.frames} of {frames} samples")
    places: list[int | None] = []
    for i in channels:
        wanted = header.names[i]
        if header.is_variable:
            has = wanted.strip().lower() in [one.strip().lower() for one in part.names]
            places.append(channel(part.names, wanted) if has else None)
        else:
            if part.names[i : i + 1] != [wanted]:
                own = ", ".join(part.names)
                raise RecordError(f"its leads are {own}, the record's {', '.join(header.names)}")
            places.append(i)
        place = places[-1]
        if place is not None and part.per_frame[place] != header.per_frame[i]:
            raise RecordError(f"lead {wanted} has another sampling rate than in the record")
    known = [place for place in places if place is not None]
    found = iter(_samples(part, known, units) if known else [])
    return [gap if place is None else next(found) for gap, place in zip(gaps, places, strict=True)]


def _samples(header: Header, channels: Sequence[int], units: str | None) -> list[np.ndarray]:
    """Leads of a record of one segment in mV."""
    with _quiet():
        import wfdb

    factors = []
    for i in channels:
        try:
            if units is None and conversion.is_unscaled(header.units[i]):
                raise RecordError(f"its unit is {header.units[i]!r}, not one of V, mV, uV, nV")
            factors.append(conversion.mv_per_unit(header.units[i] if units is None else units))
        except RecordError as error:
            raise RecordError(
                f"lead {header.names[i] or i}: {error}; choose other leads with data.lead=…, or "
                "say the unit with data.units=…"
            ) from None
    files = [file for file in files_of(header.path) if file.suffix != ".hea"]
    for file in files:
        if not file.is_file():
            raise RecordError(f"its signal file is missing ({file.name})")
        refuse_pointer(file)
    # wfdb reads each lead once, in the order of the file.
    distinct = sorted(set(channels))
    try:
        with _quiet():
            record = wfdb.rdrecord(str(header.path), channels=distinct, smooth_frames=False)
        signals = [np.asarray(signal, dtype=np.float64) for signal in record.e_p_signal]
    except Exception as error:  # wfdb raises many kinds on damaged or truncated signals
        raise RecordError(
            f"its signal file is truncated or damaged ({first_line(error)})"
        ) from None
    out = []
    for i, factor in zip(channels, factors, strict=True):
        signal = signals[distinct.index(i)]
        expected = header.frames * header.per_frame[i]
        if len(signal) < expected:
            raise RecordError(f"its signal file holds {len(signal)} of {expected} samples")
        out.append(signal * factor)
    return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of what wfdb uses, which some environments make errors of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
