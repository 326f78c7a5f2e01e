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
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from ecgadv.errors import DataError
from ecgadv.options import Place, Seed, check_all
from ecgadv.records import cache
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.preprocessing import FS
from ecgadv.records.synthetic.recorder import (
    ambient_noise,
    device,
    electrode_motion,
    noise_level,
    ruin,
    settling,
)
from ecgadv.records.synthetic.rhythms import LEAD_IN_S, RHYTHMS
from ecgadv.records.synthetic.waves import beating

VERSION = 1
"""Part of the cache key: raise it with every change of what is generated."""

_UNITS_PER_MV = 1000.0


def load(
    seed: Seed = 0,
    per_class: Annotated[int, Ge(1), Le(5000)] = 60,
    difficulty: Annotated[float, Ge(0), Le(1)] = 0.35,
    root: Place | None = None,
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
    given = {"seed": seed, "per_class": per_class, "difficulty": difficulty}
    check_all(load, given, "data", DataError)
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
    seconds = samples / FS + LEAD_IN_S
    rhythm = RHYTHMS[letter](rng, seconds, borderline)
    respiration = float(rng.uniform(0.18, 0.32))
    heart = beating(rng, rhythm, seconds, respiration)
    level = noise_level(rng, letter, borderline, difficulty)
    skin = heart + ambient_noise(rng, heart.size, level)
    if letter == "~":
        skin = ruin(rng, skin, 0.75 if borderline else 1.0)
    elif rng.random() < 0.15 * level:
        skin = skin + electrode_motion(rng, skin.size, 0.25, jumps=1)
    if rng.random() < 0.45:
        skin = skin + settling(rng, skin.size)
    if rng.random() < 0.12:
        skin = -skin  # held the other way round
    signal = device(rng, skin)[-samples:]
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
