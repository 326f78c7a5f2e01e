"""When the heart beats, by class: RR series, premature and blocked beats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

LEAD_IN_S = 3.0
"""Seconds simulated before the record begins, for filters and the model to settle."""


SINUS, ATRIAL, VENTRICULAR, BLOCKED = range(4)


@dataclass
class Rhythm:
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


def _normal(rng: np.random.Generator, seconds: float, borderline: bool) -> Rhythm:
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
    return Rhythm(times, np.full(times.size, SINUS), p_scale=p_scale)


def _fibrillation(rng: np.random.Generator, seconds: float, borderline: bool) -> Rhythm:
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
    return Rhythm(times, np.full(k, SINUS), fibrillation=True)


def _other(rng: np.random.Generator, seconds: float, borderline: bool) -> Rhythm:
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
        inside = np.flatnonzero((times > LEAD_IN_S + 1) & (times < seconds - 1))
        wanted = max(1, round(seconds / 30)) if borderline else max(2, round(seconds / 12))
        premature[rng.choice(inside, min(wanted, inside.size), replace=False)] = True
        code = ATRIAL if kind == "atrial" else VENTRICULAR
        return _ectopic(rng, times, premature, code)
    if kind == "bigeminy":
        every = int(rng.choice((2, 2, 3)))
        premature = np.arange(times.size) % every == 0
        code = VENTRICULAR if rng.random() < 0.7 else ATRIAL
        return _ectopic(rng, times, premature, code)
    if kind == "block":
        return _blocked(rng, times)
    return Rhythm(times, np.full(times.size, SINUS))


def _ectopic(
    rng: np.random.Generator, times: np.ndarray, premature: np.ndarray, code: int
) -> Rhythm:
    """Bring some beats forward.

    A ventricular one leaves the sinus node alone (compensatory pause), an atrial one resets it
    (every later beat comes earlier).
    """
    premature = premature.copy()
    premature[0] = False
    premature[1:] &= ~(premature[:-1] & premature[1:])
    rr = np.diff(times, prepend=times[0] - np.median(np.diff(times)))
    coupling = rng.uniform(0.5, 0.72) if code == VENTRICULAR else rng.uniform(0.55, 0.78)
    jitter = rng.normal(1.0, 0.03, times.size)
    early = np.where(premature, rr * (1 - coupling * jitter), 0.0)
    moved = times - early
    if code == ATRIAL:
        reset = float(rng.uniform(0.6, 1.0))
        before = np.concatenate([[0.0], np.cumsum(reset * early)[:-1]])
        moved = times - early - before
    kinds = np.where(premature, code, SINUS)
    order = np.argsort(moved, kind="stable")
    return Rhythm(moved[order], kinds[order])


def _blocked(rng: np.random.Generator, times: np.ndarray) -> Rhythm:
    """Second-degree AV block: the delay grows from beat to beat until one is not conducted."""
    every = int(rng.integers(3, 6))
    place = (np.arange(times.size) + rng.integers(every)) % every
    kinds = np.where(place == every - 1, BLOCKED, SINUS)
    grows = float(rng.choice((0.0, 0.04)))
    delay = np.where(kinds == BLOCKED, 0.0, place * grows)
    return Rhythm(times + delay, kinds, pr_shift=delay)


def _any(rng: np.random.Generator, seconds: float, borderline: bool) -> Rhythm:
    letter = rng.choice(("N", "A", "O"), p=(0.7, 0.1, 0.2))
    return RHYTHMS[str(letter)](rng, seconds, False)


RHYTHMS: dict[str, Callable[[np.random.Generator, float, bool], Rhythm]] = {
    "A": _fibrillation,
    "N": _normal,
    "O": _other,
    "~": _any,
}
