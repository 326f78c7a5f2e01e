"""What a reader of the ECG might notice of a perturbation: physical units, beats, waves.

None of these numbers is a judgement of a cardiologist; they say where and how large a change is.
"""

from __future__ import annotations

import math

import numpy as np

from ecgadv.evaluate.beats import agreement, heart_rate, r_peaks

PERCEPTIBILITY_COLUMNS = (
    "max_change_mv", "max_slope_mv_s", "ecg_band_share", "r_peaks", "r_precision", "r_recall",
    "heart_rate", "heart_rate_change", "p_share", "qrs_share", "t_share",
)  # fmt: skip
"""Columns of ``cases.csv``, in this order."""

ECG_BAND = (0.5, 40.0)
"""Hz: what ECG monitors usually pass, both ends included."""

QRS_HALF = 0.06
"""Seconds on both sides of an R peak: a QRS complex of 120 ms, the upper end of the usual."""

PR = 0.2
"""Seconds before that: the longest usual PR interval."""

QTC = 0.44
"""Seconds: QT at 60 beats/min. QT = 0.44 √RR (Bazett HC. An analysis of the time-relations of
electrocardiograms. Heart 1920; 7: 353-370) gives the end of the T wave."""

REGIONS = ("p", "qrs", "t")


def band_share(delta: np.ndarray, fs: float) -> np.ndarray:
    """Share of the energy within :data:`ECG_BAND`, by Parseval's theorem.

    Args:
        delta: (…, n), 0 outside a record's own samples.
        fs: sampling rate in Hz.

    Returns:
        (…,) from 0 to 1; NaN where there is no energy.
    """
    n = delta.shape[-1]
    power = np.square(np.abs(np.fft.rfft(np.asarray(delta, dtype=np.float64), axis=-1)))
    # Every bin but 0 and Nyquist's stands for its negative frequency too.
    power[..., 1 : (n + 1) // 2] *= 2.0
    frequency = np.fft.rfftfreq(n, 1.0 / fs)
    inside = (frequency >= ECG_BAND[0]) & (frequency <= ECG_BAND[1])
    return _ratio(power[..., inside].sum(-1), power.sum(-1))


def regions(peaks: np.ndarray, length: int, fs: float) -> dict[str, np.ndarray]:
    """Where P waves, QRS complexes and T waves lie about R peaks: fixed windows, no delineation.

    ``qrs`` is the R peak ± :data:`QRS_HALF`; ``p`` the :data:`PR` before it; ``t`` goes from the
    end of ``qrs`` to QT after its start. Where two would overlap, ``qrs`` comes before ``t`` and
    ``t`` before ``p``. After the last peak the RR interval before it is used.

    Args:
        peaks: (K,) samples.
        length: of the signal, in samples.
        fs: sampling rate in Hz.

    Returns:
        ``p``, ``qrs`` and ``t`` -> (length,) bool, no sample in two of them; all False for fewer
        than two peaks.
    """
    masks = {name: np.zeros(length, dtype=bool) for name in REGIONS}
    if len(peaks) < 2:
        return masks
    half, before = round(QRS_HALF * fs), round(PR * fs)
    intervals = np.diff(peaks, append=2 * peaks[-1] - peaks[-2]) / fs
    for peak, interval in zip(peaks, intervals, strict=True):
        start, end = peak - half, peak + half + 1
        masks["qrs"][max(0, start) : end] = True
        masks["p"][max(0, start - before) : max(0, start)] = True
        masks["t"][end : max(end, start + round(QTC * math.sqrt(interval) * fs))] = True
    masks["t"] &= ~masks["qrs"]
    masks["p"] &= ~(masks["qrs"] | masks["t"])
    return masks


def perceptibility(
    delta: np.ndarray,
    x: np.ndarray,
    lengths: np.ndarray,
    scale_mv: np.ndarray,
    fs: float,
) -> dict[str, np.ndarray]:
    """The columns :data:`PERCEPTIBILITY_COLUMNS`, on each record's own samples.

    Of several leads, beats are looked for in the first; largest changes are those of any lead, and
    energies are summed in mV².

    Args:
        delta: (B, n) or (B, leads, n) perturbations in standardised units.
        x: the same shape, standardised records.
        lengths: (B,) own samples.
        scale_mv: (B,) or (B, leads), mV per standardised unit.
        fs: sampling rate in Hz.

    Returns:
        Column -> (B,) float64, NaN where it does not exist: ``max_change_mv`` (mV),
        ``max_slope_mv_s`` (mV/s, between neighbouring samples), ``ecg_band_share`` (0 to 1),
        ``r_peaks`` (of the original), ``r_precision`` and ``r_recall`` (within 50 ms),
        ``heart_rate`` (of the original) and ``heart_rate_change`` (beats/min), ``p_share``,
        ``qrs_share`` and ``t_share`` (of the perturbation's energy, 0 to 1).
    """
    size, n = delta.shape[0], delta.shape[-1]
    scale = np.asarray(scale_mv, dtype=np.float64).reshape(size, -1, 1)
    changes = np.asarray(delta, dtype=np.float64).reshape(size, -1, n) * scale
    originals = np.asarray(x, dtype=np.float64).reshape(size, -1, n) * scale
    columns = {name: np.full(size, np.nan) for name in PERCEPTIBILITY_COLUMNS}
    for i in range(size):
        length = int(lengths[i])
        change, original = changes[i, :, :length], originals[i, :, :length]
        if not length or not np.isfinite(change).all():
            continue
        row = _case(change, original, fs)
        # Padded again to n, so that short records have the same frequencies as long ones.
        changes[i, :, length:] = 0.0
        row["ecg_band_share"] = _band_of_leads(changes[i], fs)
        for name, value in row.items():
            columns[name][i] = value
    return columns


def _case(change: np.ndarray, original: np.ndarray, fs: float) -> dict[str, float]:
    """Columns of one case but the band's, (leads, samples) in mV."""
    before, after = r_peaks(original[0], fs), r_peaks(original[0] + change[0], fs)
    beats = agreement(before, after, fs)
    slopes = np.abs(np.diff(change, axis=-1))
    row = {
        "max_change_mv": float(np.abs(change).max()),
        "max_slope_mv_s": float(slopes.max()) * fs if slopes.size else 0.0,
        "r_peaks": float(len(before)),
        "r_precision": beats.precision,
        "r_recall": beats.recall,
        "heart_rate": heart_rate(before, fs),
        "heart_rate_change": heart_rate(after, fs) - heart_rate(before, fs),
    }
    if len(before) >= 2:
        energy = np.square(change).sum(0)
        total = float(energy.sum())
        for name, mask in regions(before, change.shape[-1], fs).items():
            row[f"{name}_share"] = float(energy[mask].sum()) / total if total > 0 else math.nan
    return row


def _band_of_leads(change: np.ndarray, fs: float) -> float:
    """:func:`band_share` of (leads, n), the leads' energies added up."""
    energy = np.square(change).sum(-1)
    shares = np.nan_to_num(band_share(change, fs))
    return float(_ratio((shares * energy).sum(), energy.sum()))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def cells(columns: dict[str, np.ndarray], row: int) -> dict[str, float | int | None]:
    """One row of the table: None where there is no value, counts as whole numbers."""
    found: dict[str, float | int | None] = {}
    for name, values in columns.items():
        value = float(values[row])
        found[name] = value if math.isfinite(value) else None
    count = found.get("r_peaks")
    if count is not None:
        found["r_peaks"] = int(count)
    return found
