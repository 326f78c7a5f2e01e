"""What happens to an injected signal between its maker and the classifier, as differentiable maps.

Paper, section "Type II": a perturbation p lasts w samples, starts at an onset τ that nobody knows
beforehand (S_τ), and passes the device's front end (F). Every map takes and returns (…, n) tensors,
so they may be used in any order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.threat import filters

FILTERS = ("none", "rectangular", "butterworth")


def window_samples(window: int | str | None, n: int, fs: float) -> int:
    """Samples that a perturbation lasts.

    Args:
        window: samples, a time such as ``10s``, or None for the whole recording.
        n: samples of the recording.
        fs: sampling rate in Hz.

    Raises:
        ConfigError: it is no duration, shorter than one sample, or longer than the recording.
    """
    if window is None:
        return n
    if isinstance(window, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*s", window)
        if match is None:
            raise ConfigError(f"window={window}: must be a number of samples or a time like 10s")
        samples = round(float(match[1]) * fs)
    else:
        samples = int(window)
    if not 1 <= samples <= n:
        raise ConfigError(
            f"window={window}: must last at least one sample and at most the recording's "
            f"{n} samples ({n / fs:g} s)"
        )
    return samples


def onset_count(window: int, n: int) -> int:
    """Number of onsets: n for a whole recording, which wraps, else those that fit, n − w + 1."""
    return n if window == n else n - window + 1


def draw_views(
    seeds: Sequence[int], window: int, n: int, *, rounds: int, shifts: int, records: int = 1
) -> np.ndarray:
    """Random views of an attack: which record, and at which onset; each case from its own seed.

    Args:
        seeds: (B,) one a case, so that a batch mate never changes them.
        window: samples w of the perturbation.
        n: samples of a recording.
        rounds: sets drawn; an attack uses one an iteration and goes round.
        shifts: views in a set; 0 stands for the one onset 0.
        records: records that the views are spread over (universal training).

    Returns:
        (B, rounds, max(1, shifts)) int32: record·n + onset, onset uniform on its
        :func:`onset_count` values, record uniform on 0 … ``records`` − 1.
    """
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        size = (rounds, max(1, shifts))
        onset = rng.integers(0, onset_count(window, n), size) if shifts else np.zeros(size, int)
        record = rng.integers(0, records, size) if records > 1 else 0
        rows.append((record * n + onset).astype(np.int32))
    return np.stack(rows)


def shift(p: Any, onsets: Any) -> Any:
    """S_τ: place perturbations at onsets, (B, n) and (B, K) int32 -> (B, K, n).

    out[b, k, i] = p[b, (i − τ_bk) mod n]. A window is p with zeros after sample w − 1: at onsets of
    at most n − w it moves without wrapping; a perturbation of all n samples wraps around.
    """
    from keras import ops

    n, count = p.shape[-1], onsets.shape[-1]
    position = ops.arange(n, dtype="int32")
    index = ops.mod(position - onsets[:, :, None], n)
    return ops.take_along_axis(ops.repeat(p[:, None, :], count, axis=1), index, axis=2)


def shift_array(p: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """The same for one perturbation in NumPy, (n,) and (K,) -> (K, n)."""
    n = len(p)
    return p[(np.arange(n)[None, :] - np.asarray(onsets)[:, None]) % n]


@dataclass(frozen=True)
class FrontEnd:
    """F: the front end of a device, on tensors (``__call__``) and on NumPy arrays (``array``).

    Attributes:
        name: ``none``, ``rectangular`` (bins of a 16,384-point DFT dropped) or ``butterworth``
            (causal third-order high-pass, then notches).
        fs: sampling rate in Hz.
        high_pass: Hz; edge of the dropped band, or cut-off.
        mains: Hz; dropped or notched.
        q: quality factor of the notches.

    Raises:
        ConfigError: an unknown name, or a frequency that is not below half the sampling rate.
    """

    name: str = "none"
    fs: float = 300.0
    high_pass: float = 0.055
    mains: tuple[float, ...] = (50.0, 60.0)
    q: float = filters.NOTCH_Q

    def __post_init__(self) -> None:
        if self.name not in FILTERS:
            raise ConfigError(f"filter={self.name}: unknown; there are {', '.join(FILTERS)}")
        object.__setattr__(self, "mains", tuple(float(f) for f in self.mains))
        if self.name == "none":
            return
        for frequency in (self.high_pass, *self.mains):
            if not 0 < frequency < self.fs / 2:
                raise ConfigError(
                    f"filter={self.name}: {frequency:g} Hz is not between 0 and half the sampling "
                    f"rate ({self.fs / 2:g} Hz)"
                )

    @classmethod
    def from_config(cls, node: Mapping[str, Any], fs: float = 300.0) -> FrontEnd:
        """From the ``filter`` group, or from ``evaluation`` with its name under ``name``.

        Mains that are not given are 50 and 60 Hz, as far as the sampling rate has them.
        """
        name = str(node["name"])
        usual = filters.HIGH_PASS_HZ if name == "butterworth" else 0.055
        mains = node.get("mains")
        if mains is None:
            known = filters.MAINS_HZ if name == "butterworth" else (50.0, 60.0)
            mains = [frequency for frequency in known if frequency < fs / 2]
        return cls(
            name,
            float(fs),
            float(usual if node.get("high_pass") is None else node["high_pass"]),
            tuple(mains),
            float(node.get("q") or filters.NOTCH_Q),
        )

    def array(self, p: np.ndarray) -> np.ndarray:
        """(…, n) -> (…, n) float64, by the reference filters of :mod:`ecgadv.threat.filters`."""
        if self.name == "rectangular":
            return filters.rectangular(p, self.fs, self.high_pass, self.mains)
        if self.name == "butterworth":
            return filters.butterworth(p, self.fs, self.high_pass, self.mains, self.q)
        return np.asarray(p, dtype=np.float64)

    def __call__(self, p: Any) -> Any:
        """(…, n) tensor -> (…, n) tensor, linear and differentiable."""
        from keras import ops

        n = int(p.shape[-1])
        if self.name == "rectangular":
            # A few bins of a DFT go: subtracting their waves costs two thin products, not two FFTs.
            waves = ops.convert_to_tensor(_stopped_waves(self, n))
            return p - ops.matmul(ops.matmul(p, ops.transpose(waves)), waves)
        if self.name == "butterworth":
            real, imaginary = (ops.convert_to_tensor(part) for part in _response(self, n))
            size = 2 * n
            spread = [(0, 0)] * (len(p.shape) - 1)
            a, b = ops.rfft(ops.pad(p, [*spread, (0, n)]), size)
            product = (a * real - b * imaginary, a * imaginary + b * real)
            return ops.irfft(product, size)[..., :n]
        return p


@lru_cache(maxsize=16)
def _stopped_waves(front_end: FrontEnd, n: int) -> np.ndarray:
    """(2·bins, n) float32: rows b with F(p) = p − Σ_b b·(bᵀp) for the rectangular filter."""
    nfft = filters.NFFT
    if n > nfft:
        raise ConfigError(f"filter=rectangular: {n} samples, at most {nfft}")
    bins = filters.stopped_bins(front_end.fs, front_end.high_pass, front_end.mains)
    angle = 2 * np.pi * bins[:, None] * np.arange(n)[None, :] / nfft
    # Every bin but the one at half the sampling rate has a mirror image, which goes with it.
    weight = np.where(2 * bins == nfft, 1.0, 2.0)[:, None] / nfft
    waves = np.concatenate([np.cos(angle), np.sin(angle)]) * np.sqrt(np.tile(weight, (2, 1)))
    return waves.astype(np.float32)


@lru_cache(maxsize=16)
def _response(front_end: FrontEnd, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary part, (n + 1,) float32, of the impulse response zero-padded to 2n.

    The first n samples of a causal filter's output need the first n of its impulse response only,
    so the zero-padded product is exact.
    """
    impulse = np.zeros(n)
    impulse[0] = 1.0
    spectrum = np.fft.rfft(front_end.array(impulse), 2 * n)
    return spectrum.real.astype(np.float32), spectrum.imag.astype(np.float32)
