"""From anybody's recording to the classifier's: mV, its sampling rate, the part that is read."""

from __future__ import annotations

import re
import warnings
from fractions import Fraction
from typing import Annotated, Any

import numpy as np

from ecgadv import options, spelling
from ecgadv.errors import DataError, RecordError
from ecgadv.records.preprocessing import FS, MAX_MISSING

NO_SCALE = "none"
"""``data.units`` of values that have no scale in mV."""

_MV_PER_VOLT = {"": 1e3, "m": 1.0, "u": 1e-3, "n": 1e-6}
_PREFIXES = {"milli": "m", "micro": "u", "nano": "n"}

_FS_RANGE = (30.0, 100_000.0)


def mv_per_unit(units: str) -> float:
    """How many mV one unit of a recording is; 1 for values without a scale (``none``).

    Case and blanks do not matter, ``u``, ``µ`` (U+00B5), ``μ`` (U+03BC) and ``micro`` are the same.

    Raises:
        RecordError: an unknown unit.
    """
    text = re.sub(r"[\s\[\]()]", "", str(units)).lower()
    # A micro sign of two bytes that was read as two characters has an Â or Î before it.
    text = re.sub("â?µ|μ|î¼", "u", text)
    if is_unscaled(text):
        return 1.0
    match = re.fullmatch("(milli|micro|nano|m|u|n)?v(?:olts?)?", text)
    if match is None:
        raise RecordError(f"its unit is {units!r}, not one of V, mV, uV, nV")
    prefix = match[1] or ""
    return _MV_PER_VOLT[_PREFIXES.get(prefix, prefix)]


def is_unscaled(units: str) -> bool:
    """Whether ``data.units`` says that values have no scale in mV."""
    return str(units).strip().lower() == NO_SCALE


def check_units(units: str) -> None:
    """Raise :class:`DataError` where ``data.units`` is unknown."""
    try:
        mv_per_unit(units)
    except RecordError:
        raise DataError(
            f"data.units={units}: must be V, mV, uV or nV, or {NO_SCALE} for values without a scale"
        ) from None


def check_fs(fs: Any) -> float:
    """A sampling rate as a float.

    Raises:
        RecordError: no number, or not one that an ECG can have.
    """
    try:
        value = float(np.asarray(fs).reshape(()))
    except (TypeError, ValueError):
        raise RecordError(f"its sampling rate {fs!r} is not one number in Hz") from None
    if not _FS_RANGE[0] <= value <= _FS_RANGE[1]:
        raise RecordError(
            f"its sampling rate is {value:g} Hz, not between {_FS_RANGE[0]:g} and {_FS_RANGE[1]:g}"
        )
    return value


def resample(signal: np.ndarray, fs: float, rate: int = FS) -> np.ndarray:
    """Resample by a polyphase filter to the classifier's rate.

    Args:
        signal: (samples,) or (samples, leads) at ``fs`` Hz; NaN marks missing samples.
        fs: its sampling rate in Hz.
        rate: that of the result in Hz.

    Returns:
        (ceil(samples · rate/fs),) float32, or the same of every lead; missing stretches stay NaN.
    """
    values = np.asarray(signal, dtype=np.float64)
    if values.ndim == 2:
        return np.stack([resample(lead, fs, rate) for lead in values.T], axis=1)
    ratio = Fraction(rate / fs).limit_denominator(2000)
    if ratio == 1:
        return values.astype(np.float32)
    from scipy.signal import resample_poly

    missing = ~np.isfinite(values)
    if missing.any():
        # A NaN would spread over the whole filter; bridge the gap and mark it again afterwards.
        where = np.arange(values.size)
        values = np.interp(where, where[~missing], values[~missing])
    out = resample_poly(values, ratio.numerator, ratio.denominator, padtype="line")
    if missing.any():
        nearest = np.rint(np.arange(out.size) / float(ratio)).astype(np.int64)
        out[missing[np.minimum(nearest, missing.size - 1)]] = np.nan
    return out.astype(np.float32)


def convert(
    signal: np.ndarray,
    fs: float,
    units: str = "mV",
    rate: int = FS,
    start: float = 0.0,
    trim_zeros: bool = False,
) -> np.ndarray:
    """A recording in mV at the classifier's rate.

    Args:
        signal: (samples,) or (samples, leads) in ``units``; NaN and infinities mark missing
            samples.
        fs: sampling rate in Hz.
        units: V, mV, uV or nV; ``none`` for values without a scale.
        rate: that of the result in Hz.
        start: seconds that are left out at the beginning.
        trim_zeros: whether exact zeros at both ends, in all leads, are cut off first.

    Returns:
        (samples,) or (samples, leads) float32 in mV at ``rate`` Hz, missing samples NaN.

    Raises:
        RecordError: empty, too short for ``start``, more than half of a lead missing, or unknown
            units.
    """
    values = np.asarray(signal, dtype=np.float64) * mv_per_unit(units)
    values = window(values, fs, start, trim_zeros)
    values = np.where(np.isfinite(values), values, np.nan)
    missing = np.atleast_1d(np.isnan(values).mean(axis=0))
    if missing.max() > MAX_MISSING:
        share = f"{missing.max():.0%} of "
        which = f"lead {int(missing.argmax()) + 1} of {missing.size}"
        if missing.size > 1 and missing.max() == 1:
            raise RecordError(f"{which} is missing altogether (NaN)")
        where = f"the samples of {which}" if missing.size > 1 else "its samples"
        raise RecordError(f"{share}{where} are missing (NaN)")
    return resample(values, fs, rate)


def window(
    signal: np.ndarray, fs: float, start: float = 0.0, trim_zeros: bool = False
) -> np.ndarray:
    """The part of a recording that is read.

    Args:
        signal: (samples,) or (samples, leads).
        fs: sampling rate in Hz.
        start: seconds left out at the beginning (of what is left without the zeros).
        trim_zeros: whether exact zeros at both ends, in all leads, are cut off.

    Raises:
        RecordError: nothing is left.
    """
    if len(signal) == 0:
        raise RecordError("it holds no samples")
    if trim_zeros:
        first, last = zero_ends(signal)
        if first == len(signal):
            raise RecordError("it holds zeros only")
        signal = signal[first : len(signal) - last]
    skipped = round(start * fs)
    if skipped >= len(signal):
        raise RecordError(
            f"it lasts {len(signal) / fs:.4g} s, so nothing is left from data.start={start:g} on"
        )
    return signal[skipped:]


def zero_ends(signal: np.ndarray) -> tuple[int, int]:
    """Samples that are exactly zero, in all leads, at the beginning and at the end."""
    values = np.asarray(signal)
    used = np.flatnonzero(values if values.ndim == 1 else values.any(axis=1))
    if not used.size:
        return len(signal), len(signal)
    return int(used[0]), len(signal) - 1 - int(used[-1])


def seconds(value: float | str | None, option: str = "data.start") -> float:
    """Seconds of a number or of a time such as ``60s``.

    Raises:
        DataError: neither, or below 0.
    """
    text = str(value).strip() if value is not None else "0"
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(?:e([+-]?\d{1,2}))?\s*s?", text)
    if match is None or isinstance(value, bool):
        raise DataError(f"{option}={value}: must be seconds, at least 0, such as 60 or 60s")
    return float(text.rstrip("s "))


def _is_time(value: Any) -> bool:
    try:
        return value is not None and seconds(value) >= 0
    except DataError:
        return False


def _time(value: Any) -> Any:
    """The number of a text such as ``60s``."""
    is_text = isinstance(value, str) and _is_time(value)
    return spelling.number(value.strip().rstrip("s ")) if is_text else value


Start = Annotated[
    float | str, options.Form("seconds, at least 0, such as 60 or 60s", _is_time, _time)
]


def amplitude(signal: np.ndarray, fs: float) -> tuple[float, float]:
    """How far a recording moves within a second: in most of its seconds, and in the liveliest.

    Offsets, slow drift and single artefacts do not count, so the unit can be judged by it.

    Args:
        signal: (samples,) or (samples, leads) in mV.
        fs: sampling rate in Hz.

    Returns:
        The median and the 95th percentile over the seconds of the range from lowest to highest
        sample, of the lead that moves most; NaN where nothing is known.
    """
    values = np.asarray(signal, dtype=np.float64).reshape(len(signal), -1)
    second = min(len(values), max(2, round(fs)))
    whole = values[: len(values) // second * second]
    pieces = whole.reshape(-1, second, values.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a piece without any sample
        ranges = np.nanmax(pieces, axis=1) - np.nanmin(pieces, axis=1)
    # A piece without any sample, or without any change, is none of the ECG.
    ranges = np.where(ranges > 0, ranges, np.nan)
    usual, lively = [], []
    for lead in ranges.T:
        known = lead[np.isfinite(lead)]
        if known.size:
            usual.append(float(np.median(known)))
            lively.append(float(np.percentile(known, 95)))
    return (max(usual), max(lively)) if usual else (float("nan"), float("nan"))
