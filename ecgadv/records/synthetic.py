"""Synthetic single-lead ECGs from the dynamical model of McSharry et al. (2003).

The model (ECGSYN; IEEE Trans. Biomed. Eng. 50(3):289-294) moves a point around the unit circle,
one turn a beat, and lets it draw the ECG:

    θ' = ω(t) = 2π / RR(t)
    z' = -Σ_i a_i Δθ_i exp(-Δθ_i² / 2 b_i²) - (z - z_0(t)),    Δθ_i = θ - θ_i

with z in mV, θ_i, a_i, b_i the place, strength and width of the waves P, Q, R, S and T, and z_0 the
respiratory baseline. On the circle the first two of the paper's three equations reduce to θ' = ω:
the phase is the integral of 2π/RR, so beats fall where it passes a multiple of 2π. The third is
linear in z and is integrated for a whole record at once by a first-order recursion. What is added:
RR series by class, waves that may differ from beat to beat (θ_i = ω τ_i, b_i = ω s_i and
a_i = h_i ω / b_i² for a wave of height h_i mV and width s_i seconds, τ_i seconds from its R peak),
fibrillatory waves (Stridh & Sörnmo 2001), and the band, the noise and the artefacts of a hand-held
recorder. Ranges follow those of the CinC 2017 recordings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ecgadv.errors import DataError
from ecgadv.records import cache
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.preprocessing import FS

VERSION = 1
"""Part of the cache key: raise it with every change of what is generated."""

MIN_PER_CLASS, MAX_PER_CLASS = 1, 5000

_UNITS_PER_MV = 1000.0
_LEAD_IN_S = 3.0
"""Seconds simulated before the record begins, for filters and the model to settle."""

_SINUS, _ATRIAL, _VENTRICULAR, _BLOCKED = range(4)


@dataclass
class _Rhythm:
    """When the heart beats, and what kind of beat each is.

    Attributes:
        times: (K,) R peaks in seconds from the start of the simulation, ascending.
        kinds: (K,) sinus, premature atrial, ventricular, or blocked (a P wave without QRS).
        fibrillation: no P waves, fibrillatory waves instead.
        p_scale: factor on the height of every P wave.
        pr_shift: (K,) seconds by which a beat's P wave comes early (AV delay).
    """

    times: np.ndarray
    kinds: np.ndarray
    fibrillation: bool = False
    p_scale: float = 1.0
    pr_shift: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not self.pr_shift.size:
            self.pr_shift = np.zeros(len(self.times))


def load(
    seed: int = 0,
    per_class: int = 60,
    difficulty: float = 0.35,
    root: str | Path | None = None,
) -> RecordSet:
    """Generate a labelled set of recordings.

    Args:
        seed: of everything random; record i of a class depends on it and on i only, so a larger
            set begins with the smaller one.
        per_class: records of each of the four classes, interleaved A, N, O, ~, A, …
        difficulty: 0 to 1; the share of borderline records (slow and fairly regular atrial
            fibrillation, marked sinus arrhythmia, small P waves, rare ectopic beats, moderate
            noise), and how noisy all of them are.
        root: not used; a data source that needs no file must not be given one.

    Returns:
        Records ``S00001``, …, 300 Hz, int16 with 1000 units per mV, 9 to 60 s long. The same
        arguments give the same bytes on one machine.

    Raises:
        DataError: an argument is out of range.
    """
    if root is not None:
        raise DataError(
            f"data.root={root}: data=synthetic reads no file (did you mean data=cinc2017?)"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DataError(f"data.seed={seed}: must be a whole number, at least 0")
    if (
        isinstance(per_class, bool)
        or not isinstance(per_class, int)
        or not MIN_PER_CLASS <= per_class <= MAX_PER_CLASS
    ):
        raise DataError(f"data.per_class={per_class}: must be {MIN_PER_CLASS} … {MAX_PER_CLASS}")
    if not isinstance(difficulty, int | float) or not 0 <= difficulty <= 1:
        raise DataError(f"data.difficulty={difficulty}: must be between 0 and 1")
    text = f"synthetic|{VERSION}|{seed}|{per_class}|{float(difficulty)!r}"
    key = hashlib.sha256(text.encode()).hexdigest()
    return cache.cached("synthetic", key, lambda: _generate(seed, per_class, float(difficulty)))


def _generate(seed: int, per_class: int, difficulty: float) -> RecordSet:
    records: list[tuple[str, str, np.ndarray]] = []
    for i in range(per_class):
        for letter in CLASSES:
            rng = np.random.default_rng([seed, CLASSES.index(letter), i])
            signal = make_record(letter, rng, difficulty)
            records.append((f"S{len(records) + 1:05d}", letter, signal))
    return RecordSet.pack("synthetic", records, gain=_UNITS_PER_MV)


def make_record(letter: str, rng: np.random.Generator, difficulty: float = 0.35) -> np.ndarray:
    """One recording of a class.

    Args:
        letter: A, N, O or ~.
        rng: source of everything random.
        difficulty: as for :func:`load`.

    Returns:
        (samples,) int16 at 300 Hz, 1000 units per mV.
    """
    borderline = bool(rng.random() < difficulty)
    samples = _length(letter, rng)
    seconds = samples / FS + _LEAD_IN_S
    rhythm = _RHYTHMS[letter](rng, seconds, borderline)
    respiration = float(rng.uniform(0.18, 0.32))
    heart = _heart(rng, rhythm, seconds, respiration)
    level = _noise_level(rng, letter, borderline, difficulty)
    skin = heart + _ambient_noise(rng, heart.size, level)
    if letter == "~":
        skin = _ruin(rng, skin, 0.75 if borderline else 1.0)
    elif rng.random() < 0.15 * level:
        skin = skin + _electrode_motion(rng, skin.size, 0.25, jumps=1)
    if rng.random() < 0.45:
        skin = skin + _settling(rng, skin.size)
    if rng.random() < 0.12:
        skin = -skin  # held the other way round
    signal = _device(rng, skin)[-samples:]
    return np.clip(np.rint(signal * _UNITS_PER_MV), -32768, 32767).astype(np.int16)


def _length(letter: str, rng: np.random.Generator) -> int:
    """Samples of a record, distributed as in CinC 2017."""
    short, exact, between = (0.49, 0.44, 0.05) if letter == "~" else (0.11, 0.71, 0.08)
    kind = rng.random()
    if kind < short:
        return int(FS * (9 + 20.5 * rng.beta(1.3, 1.6)))
    if kind < short + exact:
        return 30 * FS
    if kind < short + exact + between:
        return int(FS * rng.uniform(30, 60))
    return 60 * FS


# --- rhythms ------------------------------------------------------------------------------------


def tachogram(
    rng: np.random.Generator,
    seconds: float,
    mean: float,
    sd: float,
    lf_hf: float = 0.5,
    respiration: float = 0.25,
) -> np.ndarray:
    """RR intervals of a sinus rhythm over time, with the paper's bimodal spectrum.

    Args:
        rng: of the phases.
        seconds: duration.
        mean: of RR, in s.
        sd: of RR, in s.
        lf_hf: power of the Mayer wave (0.1 Hz) over that of respiratory sinus arrhythmia.
        respiration: rate of breathing in Hz.

    Returns:
        (ceil(4 · seconds) + 1,) RR in s, sampled at 4 Hz.
    """
    n = int(np.ceil(4 * seconds)) + 1
    size = 2 * max(n, 256)
    f = np.fft.rfftfreq(size, 1 / 4)
    width = 0.015
    power = lf_hf * np.exp(-((f - 0.1) ** 2) / (2 * width**2))
    power += np.exp(-((f - respiration) ** 2) / (2 * width**2))
    spectrum = np.sqrt(power) * np.exp(2j * np.pi * rng.random(f.size))
    spectrum[0] = 0
    series = np.fft.irfft(spectrum, size)[:n]
    series = (series - series.mean()) / max(series.std(), 1e-12)
    return np.maximum(mean + sd * series, 0.3)


def _beats(rr: np.ndarray, start: float) -> np.ndarray:
    """R peaks in s: where the integral of 1/RR(t) passes a whole number.

    Args:
        rr: RR in s, sampled at 4 Hz.
        start: phase at t = 0, in turns.
    """
    turns = start + np.concatenate([[0.0], np.cumsum(0.125 * (1 / rr[1:] + 1 / rr[:-1]))])
    whole = np.arange(np.ceil(turns[0]), np.floor(turns[-1]) + 1)
    return np.interp(whole, turns, np.arange(rr.size) / 4)


def _sinus(rng: np.random.Generator, seconds: float, rate: float, sd: float) -> np.ndarray:
    rr = tachogram(
        rng, seconds + 4, 60 / rate, sd, rng.uniform(0.3, 1.5), float(rng.uniform(0.18, 0.32))
    )
    return _beats(rr, rng.random())


def _normal(rng: np.random.Generator, seconds: float, borderline: bool) -> _Rhythm:
    rate = float(np.clip(rng.normal(73, 11), 51, 98))
    sd = float(rng.uniform(0.015, 0.06))
    p_scale = 1.0
    if borderline:
        which = rng.random()
        if which < 0.6:
            rate, sd = float(rng.uniform(54, 76)), float(rng.uniform(0.12, 0.22))
            p_scale = float(rng.uniform(0.15, 1.0))
        elif which < 0.8:
            sd, p_scale = float(rng.uniform(0.04, 0.1)), float(rng.uniform(0.0, 0.25))
        else:
            rate, p_scale = float(rng.uniform(94, 100)), float(rng.uniform(0.4, 0.8))
    times = _sinus(rng, seconds, rate, sd)
    return _Rhythm(times, np.full(times.size, _SINUS), p_scale=p_scale)


def _fibrillation(rng: np.random.Generator, seconds: float, borderline: bool) -> _Rhythm:
    rate, spread = float(rng.uniform(68, 135)), float(rng.uniform(0.16, 0.28))
    if borderline:
        rate, spread = float(rng.uniform(55, 85)), float(rng.uniform(0.05, 0.11))
    k = int(seconds * rate / 60 * 1.6) + 12
    # Nearly uncorrelated and skewed to the right: a log-normal AR(1).
    phi = rng.uniform(-0.15, 0.25)
    u = np.empty(k)
    u[0] = rng.normal()
    shocks = rng.normal(size=k) * np.sqrt(1 - phi**2)
    for i in range(1, k):
        u[i] = phi * u[i - 1] + shocks[i]
    rr = np.maximum(60 / rate * np.exp(spread * u - spread**2 / 2), rng.uniform(0.3, 0.36))
    times = np.cumsum(rr) - rr[0] * rng.random()
    return _Rhythm(times, np.full(k, _SINUS), fibrillation=True)


def _other(rng: np.random.Generator, seconds: float, borderline: bool) -> _Rhythm:
    kinds = ("atrial", "ventricular", "bigeminy", "slow", "fast", "block")
    kind = rng.choice(kinds, p=(0.27, 0.27, 0.12, 0.12, 0.12, 0.10))
    rate, sd = float(np.clip(rng.normal(74, 12), 52, 98)), float(rng.uniform(0.015, 0.05))
    share = float(rng.uniform(0.1, 0.3))
    if borderline:
        kind, share = rng.choice(("atrial", "ventricular", "slow", "fast")), 0.0
    if kind == "slow":
        rate = float(rng.uniform(48, 52) if borderline else rng.uniform(36, 48))
    if kind == "fast":
        rate = float(rng.uniform(98, 106) if borderline else rng.uniform(108, 150))
        sd *= 0.4
    times = _sinus(rng, seconds, rate, sd)
    if kind in ("atrial", "ventricular"):
        premature = rng.random(times.size) < share
        # Even the rare ones are within the record that is kept, not in its lead-in.
        inside = np.flatnonzero((times > _LEAD_IN_S + 1) & (times < seconds - 1))
        wanted = max(1, round(seconds / 30)) if borderline else max(2, round(seconds / 12))
        premature[rng.choice(inside, min(wanted, inside.size), replace=False)] = True
        code = _ATRIAL if kind == "atrial" else _VENTRICULAR
        return _ectopic(rng, times, premature, code)
    if kind == "bigeminy":
        every = int(rng.choice((2, 2, 3)))
        premature = np.arange(times.size) % every == 0
        code = _VENTRICULAR if rng.random() < 0.7 else _ATRIAL
        return _ectopic(rng, times, premature, code)
    if kind == "block":
        return _blocked(rng, times)
    return _Rhythm(times, np.full(times.size, _SINUS))


def _ectopic(
    rng: np.random.Generator, times: np.ndarray, premature: np.ndarray, code: int
) -> _Rhythm:
    """Bring some beats forward.

    A ventricular one leaves the sinus node alone (compensatory pause), an atrial one resets it
    (every later beat comes earlier).
    """
    premature = premature.copy()
    premature[0] = False
    premature[1:] &= ~(premature[:-1] & premature[1:])
    rr = np.diff(times, prepend=times[0] - np.median(np.diff(times)))
    coupling = rng.uniform(0.5, 0.72) if code == _VENTRICULAR else rng.uniform(0.55, 0.78)
    jitter = rng.normal(1.0, 0.03, times.size)
    early = np.where(premature, rr * (1 - coupling * jitter), 0.0)
    moved = times - early
    if code == _ATRIAL:
        reset = float(rng.uniform(0.6, 1.0))
        before = np.concatenate([[0.0], np.cumsum(reset * early)[:-1]])
        moved = times - early - before
    kinds = np.where(premature, code, _SINUS)
    order = np.argsort(moved, kind="stable")
    return _Rhythm(moved[order], kinds[order])


def _blocked(rng: np.random.Generator, times: np.ndarray) -> _Rhythm:
    """Second-degree AV block: the delay grows from beat to beat until one is not conducted."""
    every = int(rng.integers(3, 6))
    place = (np.arange(times.size) + rng.integers(every)) % every
    kinds = np.where(place == every - 1, _BLOCKED, _SINUS)
    grows = float(rng.choice((0.0, 0.04)))
    delay = np.where(kinds == _BLOCKED, 0.0, place * grows)
    return _Rhythm(times + delay, kinds, pr_shift=delay)


def _any(rng: np.random.Generator, seconds: float, borderline: bool) -> _Rhythm:
    letter = rng.choice(("N", "A", "O"), p=(0.7, 0.1, 0.2))
    return _RHYTHMS[str(letter)](rng, seconds, False)


_RHYTHMS: dict[str, Callable[[np.random.Generator, float, bool], _Rhythm]] = {
    "A": _fibrillation,
    "N": _normal,
    "O": _other,
    "~": _any,
}

# --- waves --------------------------------------------------------------------------------------


def _heart(
    rng: np.random.Generator, rhythm: _Rhythm, seconds: float, respiration: float
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
    rng: np.random.Generator, rhythm: _Rhythm, respiration: float
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

    atrial = kinds == _ATRIAL
    height[atrial, 0] *= rng.uniform(-0.8, 0.7)
    offset[atrial, 0] *= 0.85
    blocked = kinds == _BLOCKED
    height[blocked, 1:] = 0.0
    wide_beats = kinds == _VENTRICULAR
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
    phase += 0.6 * _smooth_noise(rng, t.size, 1.0)
    envelope = 1 + rng.uniform(0.2, 0.5) * np.sin(2 * np.pi * (rng.uniform(0.1, 0.4) * t))
    wave = sum(2 / (m * np.pi) * np.sin(m * phase + 0.2 * m) for m in (1, 2, 3))
    return np.asarray(strength * envelope * wave)


# --- skin, electrodes and device ----------------------------------------------------------------


def _band(noise: np.ndarray, low: float | None, high: float | None, order: int = 2) -> np.ndarray:
    from scipy.signal import butter, sosfilt

    if low is None:
        sos = butter(order, high, "lowpass", fs=FS, output="sos")
    elif high is None:
        sos = butter(order, low, "highpass", fs=FS, output="sos")
    else:
        sos = butter(order, (low, high), "bandpass", fs=FS, output="sos")
    return np.asarray(sosfilt(sos, noise), dtype=np.float64)


def _smooth_noise(rng: np.random.Generator, n: int, high: float) -> np.ndarray:
    """(n,) Gaussian noise below ``high`` Hz (second-order roll-off), standard deviation 1."""
    # Coloured in the frequency domain: a filter design a call would cost more than the noise.
    size = 1 << (n + 2 * FS - 1).bit_length()
    f = np.fft.rfftfreq(size, 1 / FS)
    shape = 1 / np.sqrt(1 + (f / high) ** 4)
    spectrum = shape * (rng.normal(size=f.size) + 1j * rng.normal(size=f.size))
    noise = np.fft.irfft(spectrum, size)[:n]
    return noise / max(noise.std(), 1e-12)


def _noise_level(
    rng: np.random.Generator, letter: str, borderline: bool, difficulty: float
) -> float:
    level = (0.5 + difficulty) * float(rng.lognormal(0.0, 0.45))
    if borderline and letter != "~" and rng.random() < 0.3:
        level *= 3.0
    return min(level, 4.5)


def _ambient_noise(rng: np.random.Generator, n: int, level: float) -> np.ndarray:
    """(n,) mV: baseline wander, muscle and what is left of the mains."""
    wander = rng.lognormal(np.log(0.065), 0.55) * _smooth_noise(rng, n, rng.uniform(0.4, 0.9))
    muscle = _band(rng.normal(size=n), 4.0, 45.0)
    muscle *= rng.lognormal(np.log(0.013), 0.4) / max(muscle.std(), 1e-12)
    muscle *= np.clip(1 + 0.5 * _smooth_noise(rng, n, 0.5), 0.2, 3)
    mains = rng.choice((50, 60))
    hum = rng.uniform(0.0005, 0.004) * np.sin(
        2 * np.pi * (mains * np.arange(n) / FS + rng.random())
    )
    return level * (wander + muscle) + hum


def _electrode_motion(
    rng: np.random.Generator, n: int, strength: float, jumps: int = 0
) -> np.ndarray:
    """(n,) mV: slow swings, and jumps that decay as the electrode settles."""
    out = strength * 0.6 * _smooth_noise(rng, n, rng.uniform(0.6, 2.5))
    out *= np.clip(0.6 + 0.7 * _smooth_noise(rng, n, 0.15), 0, 2.5)
    t = np.arange(n) / FS
    for _ in range(jumps):
        at = rng.uniform(_LEAD_IN_S, t[-1])
        decay = np.exp(-np.maximum(t - at, 0) / rng.uniform(0.1, 0.8))
        out += strength * rng.normal() * 2 * np.where(t >= at, decay, 0.0)
    return out


def _settling(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) mV: fingers find their place while the recording has begun already."""
    t = np.arange(n) / FS - _LEAD_IN_S
    fade = np.exp(-np.maximum(t, 0) / rng.uniform(0.2, 0.7))
    swing = rng.normal() + 0.7 * _smooth_noise(rng, n, rng.uniform(1.0, 4.0))
    return np.asarray(min(rng.lognormal(np.log(0.5), 0.7), 3.0) * fade * swing)


def _ruin(rng: np.random.Generator, skin: np.ndarray, strength: float) -> np.ndarray:
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
        out = out + _electrode_motion(rng, n, strength * rng.uniform(0.5, 1.5), jumps)
    if muscle:
        noise = _band(rng.normal(size=n), rng.uniform(2, 8), rng.uniform(25, 40))
        bursts = np.clip(0.7 + 0.8 * _smooth_noise(rng, n, 0.4), 0.05, 3)
        out = out + strength * rng.uniform(0.06, 0.25) * noise / noise.std() * bursts
    if loss:
        gone = _smooth_noise(rng, n, 0.25) > rng.uniform(-0.3, 0.8)
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


def _device(rng: np.random.Generator, skin: np.ndarray) -> np.ndarray:
    """The recorder: its band of about 0.5 to 40 Hz, and a noise floor of a few µV."""
    out = _band(skin, 0.45, None, order=1)
    out = _band(out, None, 38.0, order=3)
    return out + rng.normal(0, 0.0012, skin.size)
