"""R peaks: a detector of two moving averages, and how well two sets of peaks agree.

Elgendi M. Fast QRS detection with an optimized knowledge-based method: evaluation on 11 standard
ECG databases. PLoS ONE 2013; 8(9): e73557. Its numbers are kept: a band of 8 to 20 Hz, windows of
97 and 611 ms, an offset of 8 % of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BAND = (8.0, 20.0)
"""Hz; where QRS complexes have most of their energy."""

QRS_WINDOW = 0.097
"""Seconds: about a QRS complex."""

BEAT_WINDOW = 0.611
"""Seconds: about a beat."""

OFFSET = 0.08
"""Of the mean of the squared signal; what a block has to stand out by."""

REFRACTORY = 0.2
"""Seconds within which a ventricle does not beat twice (Pan and Tompkins 1985)."""

TOLERANCE = 0.05
"""Seconds that a peak may move and still be the same beat."""

SHORTEST = 1.0
"""Seconds; a shorter signal has no peaks that could be told apart from its ends."""


@lru_cache(maxsize=4)
def _sections(fs: float) -> np.ndarray:
    from scipy.signal import butter

    sections: np.ndarray = butter(3, BAND, btype="bandpass", fs=fs, output="sos")
    return sections


def r_peaks(signal: np.ndarray, fs: float) -> np.ndarray:
    """Samples of the R peaks (of S waves in inverted leads), increasing.

    The result depends neither on the unit nor on the polarity of the signal.

    Args:
        signal: (samples,) one lead, its own samples only, at any scale.
        fs: sampling rate in Hz, above 40.

    Returns:
        (K,) int64; empty for a flat line and for less than :data:`SHORTEST`.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import sosfiltfilt

    none = np.zeros(0, dtype=np.int64)
    x = np.asarray(signal, dtype=np.float64)
    if x.size < SHORTEST * fs or not np.isfinite(x).all():
        return none
    spread = float(x.std())
    if spread <= 0.0:
        return none
    # Of unit spread, so that no unit is small enough to lose its squares to rounding.
    energy = np.square(sosfiltfilt(_sections(float(fs)), (x - x.mean()) / spread))
    narrow = round(QRS_WINDOW * fs)
    qrs = uniform_filter1d(energy, narrow, mode="constant")
    beat = uniform_filter1d(energy, round(BEAT_WINDOW * fs), mode="constant")
    inside = np.concatenate([[False], qrs > beat + OFFSET * energy.mean(), [False]])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    peaks: list[int] = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if last - first < narrow:
            continue
        peak = int(first + np.argmax(energy[first:last]))
        if peaks and peak - peaks[-1] < REFRACTORY * fs:
            if energy[peak] > energy[peaks[-1]]:
                peaks[-1] = peak
        else:
            peaks.append(peak)
    return np.array(peaks, dtype=np.int64) if peaks else none


@dataclass(frozen=True)
class Agreement:
    """How well the beats of a changed signal are those of the original.

    Attributes:
        kept: peaks that both have.
        precision: of the changed signal's peaks, the share that the original has; NaN without any.
        recall: of the original's peaks, the share that is still there; NaN without any.
    """

    kept: int
    precision: float
    recall: float


def agreement(
    original: np.ndarray, changed: np.ndarray, fs: float, tolerance: float = TOLERANCE
) -> Agreement:
    """Match (K,) and (L,) increasing peaks within ``tolerance`` seconds.

    Peaks of one signal lie at least :data:`REFRACTORY` apart, more than twice the tolerance, so no
    peak can be matched twice.
    """
    kept = 0
    if len(original) and len(changed):
        place = np.searchsorted(original, changed)
        left = np.abs(changed - original[np.maximum(place - 1, 0)])
        right = np.abs(original[np.minimum(place, len(original) - 1)] - changed)
        kept = int((np.minimum(left, right) <= tolerance * fs).sum())
    precision = kept / len(changed) if len(changed) else np.nan
    return Agreement(kept, precision, kept / len(original) if len(original) else np.nan)


def heart_rate(peaks: np.ndarray, fs: float) -> float:
    """Mean rate between the first and the last of (K,) peaks, beats/min; NaN for fewer than two."""
    if len(peaks) < 2:
        return float("nan")
    return float(60.0 * fs * (len(peaks) - 1) / (peaks[-1] - peaks[0]))
