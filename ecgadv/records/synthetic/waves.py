"""The waves of every beat, and the model's equation that draws them."""

from __future__ import annotations

import numpy as np

from ecgadv.records.preprocessing import FS
from ecgadv.records.synthetic.recorder import smooth_noise
from ecgadv.records.synthetic.rhythms import ATRIAL, BLOCKED, VENTRICULAR, Rhythm


def beating(
    rng: np.random.Generator, rhythm: Rhythm, seconds: float, respiration: float
) -> np.ndarray:
    """(samples,) mV: the model's z, fibrillatory waves included, from t = 0 to ``seconds``."""
    n = round(seconds * FS)
    t = np.arange(n) / FS
    offset, width, height = _waves(rng, rhythm, respiration)
    slope = _forcing(rhythm.times, offset, width, height, t)
    z0 = rng.uniform(0.005, 0.05) * np.sin(2 * np.pi * (respiration * t + rng.random()))
    z = integrate(slope, z0)
    if rhythm.fibrillation:
        z = z + _fibrillatory_waves(rng, t)
    return z


def integrate(slope: np.ndarray, z0: np.ndarray) -> np.ndarray:
    """Solve z' = slope - (z - z0) from z = 0 by the trapezoidal rule.

    Args:
        slope: (samples,) in mV/s, at 300 Hz.
        z0: (samples,) in mV.

    Returns:
        (samples,) mV.
    """
    from scipy.signal import lfilter

    half = 0.5 / FS
    out = lfilter([half, half], [1 + half, half - 1], slope + z0)
    return np.asarray(out, dtype=np.float64)


def _waves(
    rng: np.random.Generator, rhythm: Rhythm, respiration: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place (s from the R peak), width (s) and height (mV) of the waves P, Q, R, S, T-, T+.

    Returns:
        Three arrays (K, 6).
    """
    times, kinds = rhythm.times, rhythm.kinds
    k = times.size
    rr = np.diff(times, prepend=times[0] - 0.8)
    # The QT interval follows the square root of RR, and slowly (Bazett; half-adapted to one beat).
    qt = np.sqrt(np.clip(0.7 * np.median(rr) + 0.3 * rr, 0.3, 1.6))

    r = float(np.clip(rng.lognormal(np.log(0.85), 0.35), 0.3, 2.2))
    t_wave = float(rng.uniform(0.14, 0.4)) * (0.5 + 0.5 * r)
    if rng.random() < 0.08:
        t_wave *= -0.5
    wide = float(rng.uniform(0.9, 1.3))
    ones = np.ones(k)
    offset = np.stack(
        [
            -ones * rng.uniform(0.13, 0.18) - rhythm.pr_shift,
            -ones * 0.027 * wide,
            0 * ones,
            ones * 0.029 * wide,
            rng.uniform(0.24, 0.27) * qt,
            rng.uniform(0.285, 0.31) * qt,
        ],
        axis=1,
    )
    width = np.stack(
        [
            ones * rng.uniform(0.018, 0.026),
            ones * 0.008 * wide,
            ones * 0.0105 * wide,
            ones * 0.0095 * wide,
            rng.uniform(0.042, 0.055) * qt,
            rng.uniform(0.026, 0.036) * qt,
        ],
        axis=1,
    )
    p = 0.0 if rhythm.fibrillation else float(rng.lognormal(np.log(0.085), 0.3)) * rhythm.p_scale
    base = np.array(
        [
            p,
            -r * rng.uniform(0.0, 0.15),
            r,
            -r * rng.uniform(0.02, 0.4),
            t_wave * rng.uniform(0.5, 0.7),
            t_wave * rng.uniform(0.5, 0.7),
        ]
    )
    # Breathing turns the heart's axis: heights rise and fall by a few per cent.
    turn = 1 + rng.uniform(0.01, 0.07) * np.sin(2 * np.pi * (respiration * times + rng.random()))
    height = base * (turn * rng.normal(1, 0.012, k))[:, None]
    if not rhythm.fibrillation:
        # A P wave that would fall into the T wave before it is not drawn over it.
        height[:, 0] *= np.where(rr + offset[:, 0] < 0.30 * qt, 0.4, 1.0)

    atrial = kinds == ATRIAL
    height[atrial, 0] *= rng.uniform(-0.8, 0.7)
    offset[atrial, 0] *= 0.85
    blocked = kinds == BLOCKED
    height[blocked, 1:] = 0.0
    wide_beats = kinds == VENTRICULAR
    if wide_beats.any():
        sign = 1.0 if rng.random() < 0.6 else -1.0
        peak = sign * r * rng.uniform(0.8, 1.6)
        height[wide_beats] = np.array(
            [0, -0.25 * peak, peak, -0.5 * peak, -0.3 * peak, -0.2 * peak]
        )
        offset[wide_beats, :4] = [-0.15, -0.055, 0.0, 0.07]
        width[wide_beats, :4] = [0.02, 0.02, rng.uniform(0.024, 0.034), 0.026]
    return offset, width, height


def _forcing(
    times: np.ndarray, offset: np.ndarray, width: np.ndarray, height: np.ndarray, t: np.ndarray
) -> np.ndarray:
    """-Σ_i a_i Δθ_i exp(-Δθ_i²/2b_i²) at the times t, in mV/s.

    With θ_i = ω τ_i, b_i = ω s_i and a_i = h_i ω / b_i², ω drops out: in units of time it is
    -h_i (u / s_i²) exp(-u² / 2 s_i²), u the time from the wave's centre.
    """
    total = np.zeros(t.size)
    for wave in range(offset.shape[1]):
        middle = times + offset[:, wave]
        s = width[:, wave, None]
        half = int(np.ceil(5 * s.max() * FS))
        where = np.rint(middle * FS).astype(np.int64)[:, None] + np.arange(-half, half + 1)
        u = where / FS - middle[:, None]
        values = -height[:, wave, None] * u / s**2 * np.exp(-(u**2) / (2 * s**2))
        inside = (where >= 0) & (where < t.size)
        total += np.bincount(where[inside], weights=values[inside], minlength=t.size)
    return total


def _fibrillatory_waves(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """(samples,) mV: a sawtooth of 4 to 9 Hz that wanders in frequency and amplitude.

    Stridh & Sörnmo, IEEE Trans. Biomed. Eng. 48(1):105-111 (2001): harmonics with amplitudes
    2/(mπ)·(a + Δa sin 2π f_a t) and phase 2π f_0 t + (Δf/f_f) sin 2π f_f t.
    """
    f0 = rng.uniform(4.5, 8.5)
    strength = float(np.clip(rng.lognormal(np.log(0.035), 0.5), 0.008, 0.12))
    f_mod = rng.uniform(0.1, 0.25)
    phase = 2 * np.pi * (f0 * t + rng.random())
    phase += rng.uniform(0.1, 0.3) / f_mod * np.sin(2 * np.pi * (f_mod * t + rng.random()))
    phase += 0.6 * smooth_noise(rng, t.size, 1.0)
    envelope = 1 + rng.uniform(0.2, 0.5) * np.sin(2 * np.pi * (rng.uniform(0.1, 0.4) * t))
    wave = sum(2 / (m * np.pi) * np.sin(m * phase + 0.2 * m) for m in (1, 2, 3))
    return np.asarray(strength * envelope * wave)
