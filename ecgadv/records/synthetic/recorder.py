"""What lies between the heart and the file: skin, electrodes and a hand-held recorder."""

from __future__ import annotations

import numpy as np

from ecgadv.records.preprocessing import FS
from ecgadv.records.synthetic.rhythms import LEAD_IN_S


def _band(noise: np.ndarray, low: float | None, high: float | None, order: int = 2) -> np.ndarray:
    from scipy.signal import butter, sosfilt

    if low is None:
        sos = butter(order, high, "lowpass", fs=FS, output="sos")
    elif high is None:
        sos = butter(order, low, "highpass", fs=FS, output="sos")
    else:
        sos = butter(order, (low, high), "bandpass", fs=FS, output="sos")
    return np.asarray(sosfilt(sos, noise), dtype=np.float64)


def smooth_noise(rng: np.random.Generator, n: int, high: float) -> np.ndarray:
    """(n,) Gaussian noise below ``high`` Hz (second-order roll-off), standard deviation 1."""
    # Coloured in the frequency domain: a filter design a call would cost more than the noise.
    size = 1 << (n + 2 * FS - 1).bit_length()
    f = np.fft.rfftfreq(size, 1 / FS)
    shape = 1 / np.sqrt(1 + (f / high) ** 4)
    spectrum = shape * (rng.normal(size=f.size) + 1j * rng.normal(size=f.size))
    noise = np.fft.irfft(spectrum, size)[:n]
    return noise / max(noise.std(), 1e-12)


def noise_level(
    rng: np.random.Generator, letter: str, borderline: bool, difficulty: float
) -> float:
    """How noisy a recording is; 1 is usual."""
    level = (0.5 + difficulty) * float(rng.lognormal(0.0, 0.45))
    if borderline and letter != "~" and rng.random() < 0.3:
        level *= 3.0
    return min(level, 4.5)


def ambient_noise(rng: np.random.Generator, n: int, level: float) -> np.ndarray:
    """(n,) mV: baseline wander, muscle and what is left of the mains."""
    wander = rng.lognormal(np.log(0.065), 0.55) * smooth_noise(rng, n, rng.uniform(0.4, 0.9))
    muscle = _band(rng.normal(size=n), 4.0, 45.0)
    muscle *= rng.lognormal(np.log(0.013), 0.4) / max(muscle.std(), 1e-12)
    muscle *= np.clip(1 + 0.5 * smooth_noise(rng, n, 0.5), 0.2, 3)
    mains = rng.choice((50, 60))
    hum = rng.uniform(0.0005, 0.004) * np.sin(
        2 * np.pi * (mains * np.arange(n) / FS + rng.random())
    )
    return level * (wander + muscle) + hum


def electrode_motion(
    rng: np.random.Generator, n: int, strength: float, jumps: int = 0
) -> np.ndarray:
    """(n,) mV: slow swings, and jumps that decay as the electrode settles."""
    out = strength * 0.6 * smooth_noise(rng, n, rng.uniform(0.6, 2.5))
    out *= np.clip(0.6 + 0.7 * smooth_noise(rng, n, 0.15), 0, 2.5)
    t = np.arange(n) / FS
    for _ in range(jumps):
        at = rng.uniform(LEAD_IN_S, t[-1])
        decay = np.exp(-np.maximum(t - at, 0) / rng.uniform(0.1, 0.8))
        out += strength * rng.normal() * 2 * np.where(t >= at, decay, 0.0)
    return out


def settling(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) mV: fingers find their place while the recording has begun already."""
    t = np.arange(n) / FS - LEAD_IN_S
    fade = np.exp(-np.maximum(t, 0) / rng.uniform(0.2, 0.7))
    swing = rng.normal() + 0.7 * smooth_noise(rng, n, rng.uniform(1.0, 4.0))
    return np.asarray(min(rng.lognormal(np.log(0.5), 0.7), 3.0) * fade * swing)


def ruin(rng: np.random.Generator, skin: np.ndarray, strength: float) -> np.ndarray:
    """What makes a recording unreadable: motion, muscle, clipping or a lost contact."""
    n = skin.size
    kinds = rng.random(4) < (0.9, 0.35, 0.2, 0.3)
    if not kinds.any():
        kinds[rng.integers(2)] = True
    motion, muscle, clipping, loss = kinds
    out = skin * (rng.uniform(0.25, 1.0) if strength >= 1 else 1.0)
    if motion:
        rate = rng.uniform(0.3, 1.0)
        jumps = int(rng.poisson(rate * n / FS * strength))
        out = out + electrode_motion(rng, n, strength * rng.uniform(0.5, 1.5), jumps)
    if muscle:
        noise = _band(rng.normal(size=n), rng.uniform(2, 8), rng.uniform(25, 40))
        bursts = np.clip(0.7 + 0.8 * smooth_noise(rng, n, 0.4), 0.05, 3)
        out = out + strength * rng.uniform(0.06, 0.25) * noise / noise.std() * bursts
    if loss:
        gone = smooth_noise(rng, n, 0.25) > rng.uniform(-0.3, 0.8)
        edges = np.flatnonzero(np.diff(gone.astype(np.int8)))
        keep = np.where(gone, rng.uniform(0.0, 0.15), 1.0)
        out = out * keep
        t = np.arange(n)
        for edge in edges:
            tail = np.where(t >= edge, np.exp(-(t - edge) / (rng.uniform(0.1, 0.5) * FS)), 0.0)
            out = out + strength * rng.normal() * tail
    if clipping:
        limit = rng.uniform(0.8, 1.6) * out.std()
        out = np.clip(out, -limit, limit)
    return out


def device(rng: np.random.Generator, skin: np.ndarray) -> np.ndarray:
    """The recorder: its band of about 0.5 to 40 Hz, and a noise floor of a few µV."""
    out = _band(skin, 0.45, None, order=1)
    out = _band(out, None, 38.0, order=3)
    return out + rng.normal(0, 0.0012, skin.size)
