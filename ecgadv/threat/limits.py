"""What an injector or an editor can make: a band of frequencies, a largest amplitude, some samples.

Both limits are kept by every iterate of an attack, so the stored perturbation keeps them too. The
band is that of the discrete Fourier transform over the perturbation's own samples, from the first
to the last that may differ from 0: there the nearest signal within the band is a projection, δ less
its components outside. Being switched on and off at the ends is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from ecgadv.errors import ConfigError
from ecgadv.options import Band, Spans, check, check_fields, is_span
from ecgadv.spelling import show

ROUNDS = 3
"""Turns of clipping and band-limiting before the rest is met by scaling."""

_BELOW = 1.0 - 1e-6
"""Share of the largest amplitude that is used, so that rounding never exceeds it."""


@dataclass(frozen=True)
class Limits:
    """Optional limits of a perturbation, on tensors (B, leads·n), of each lead by itself.

    Attributes:
        band: lowest and highest frequency in Hz, both included; None for all.
        peak: largest |δ| in standard deviations of the record; None for any.
        fs: sampling rate in Hz; None where it is not known yet, and then nothing can be limited
            to a band.
        leads: of a recording, one after the other.

    Raises:
        ConfigError: no band, one beyond half the sampling rate, or a peak that is not above 0.
    """

    band: Band | None = None
    peak: Annotated[float, Gt(0)] | None = None
    fs: float | None = None
    leads: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "attack")
        if self.band is None:
            return
        band = tuple(self.band)
        if self.fs is not None and band[1] > self.fs / 2:
            raise ConfigError(
                f"attack.band={show(band)}: must end at half the sampling rate, "
                f"{self.fs / 2:g} Hz, or below"
            )
        object.__setattr__(self, "band", band)

    def check_span(self, samples: int) -> None:
        """Raise :class:`ConfigError` where a perturbation of so many samples has no such wave."""
        if self.band is None or self.fs is None:
            return
        low, high = (edge * samples / self.fs for edge in self.band)
        if math.floor(high + 1e-9) < math.ceil(low - 1e-9):
            raise ConfigError(
                f"attack.band={show(self.band)}: {samples / self.fs:g} s hold no whole period of "
                "any frequency in it; widen the band or let the perturbation last longer"
            )

    def check_free(self, free: np.ndarray) -> None:
        """Raise :class:`ConfigError` where a band cannot be kept on samples, (B, leads·n)."""
        if self.band is None:
            return
        free = np.asarray(free).reshape(len(free) * self.leads, -1)
        inside = np.pad(free > 0, [(0, 0), (1, 0)])
        if (np.diff(inside.astype(int), axis=1) > 0).sum(1).max(initial=0) > 1:
            raise ConfigError(
                f"band={show(self.band)}: a signal within a band cannot have gaps, as the mask has"
            )
        for samples in np.unique(inside.sum(1)):
            self.check_span(int(samples))

    def steer(self, direction: Any, free: Any) -> Any:
        """The part of a direction that the band allows, (B, n) and (B, n) -> (B, n).

        Args:
            direction: a gradient or a step.
            free: 1 where δ may be nonzero: one run of samples where there is a band.
        """
        from keras import ops

        if self.band is None:
            return direction
        assert self.fs is not None
        apart = (-1, direction.shape[-1] // self.leads)
        rows, own = ops.reshape(direction * free, apart), ops.reshape(free, apart)
        return ops.reshape(band_limited(rows, own, self.band, self.fs), direction.shape)

    def into(self, delta: Any, free: Any) -> Any:
        """A perturbation within the limits near δ: the nearest one where there is only one limit.

        Under both it is clipped and band-limited in turns, then scaled down by what is left over.
        """
        from keras import ops

        if self.peak is None:
            return self.steer(delta, free)
        top = self.peak * _BELOW
        if self.band is None:
            return ops.clip(delta, -top, top)
        delta = self.steer(delta, free)
        for _ in range(ROUNDS):
            delta = self.steer(ops.clip(delta, -top, top), free)
        largest = ops.max(ops.abs(delta), axis=-1, keepdims=True)
        return delta * ops.minimum(1.0, top / ops.maximum(largest, 1e-12))


def spans_of(mask: Spans) -> list[tuple[float, float]]:
    """``[from,to]`` or ``[[from,to],…]`` in seconds, checked and in order.

    Raises:
        ConfigError: no such list, an empty or overlapping span, or one that begins before 0 s.
    """
    check("attack.mask", Spans, mask)
    rows: list[Any] = [mask] if is_span(mask) else list(mask)
    out = sorted((float(low), float(high)) for low, high in rows)
    if any(later[0] < sooner[1] for sooner, later in pairwise(out)):
        raise ConfigError(f"attack.mask={show(mask)}: none of the spans may overlap another")
    return out


def mask_array(mask: Spans, n: int, fs: float) -> np.ndarray:
    """(n,) float32: 1 on the samples of the spans, see :func:`spans_of`.

    Raises:
        ConfigError: no sample of n lies in them.
    """
    time = np.arange(n)
    free = np.zeros(n, dtype=np.float32)
    for low, high in spans_of(mask):
        free[(time >= round(low * fs)) & (time < round(high * fs))] = 1.0
    if not free.any():
        raise ConfigError(f"attack.mask={show(mask)}: holds no sample of the first {n / fs:g} s")
    return free


def band_limited(delta: Any, free: Any, band: Sequence[float], fs: float) -> Any:
    """Drop components outside [low, high] Hz of the DFT over each row's free samples.

    A convolution over m samples that wraps around there, with the kernel
    h_k = 1/m · Σ cos(2π·j·k/m) over the kept bins j, evaluated through a longer transform.

    Args:
        delta: (B, n), 0 where ``free`` is.
        free: (B, n) 1 on one run of m samples a row; m may differ from row to row.
        band: Hz, both edges included.
        fs: sampling rate in Hz.

    Returns:
        (B, n), 0 where ``free`` is.
    """
    from keras import ops

    n = int(delta.shape[-1])
    size = 1 << (2 * n - 1).bit_length()
    # Lags in the order of a circular convolution of `size` points: 0 … n − 1, then negative ones.
    lag = np.concatenate([np.arange(n), np.zeros(size - 2 * n + 1, int), np.arange(-n + 1, 0)])
    used = ((np.arange(size) < n) | (np.arange(size) > size - n)).astype(np.float32)
    m = ops.maximum(ops.cast(ops.sum(free, axis=-1, keepdims=True), "int32"), 1)
    length = ops.cast(m, "float32")
    # Bins of the band; the small shares put edges that fall on a bin inside.
    last = ops.cast(ops.floor(band[1] / fs * length + 1e-3), "int32")
    first = ops.cast(ops.ceil(band[0] / fs * length - 1e-3), "int32") - 1
    steps = ops.mod(ops.convert_to_tensor(lag[None].astype(np.int32)), m)
    kernel = _up_to(last, steps, m)
    if band[0] > 0:
        kernel = kernel - _up_to(first, steps, m)
    real, imaginary = ops.rfft(kernel / length * used, size)
    a, b = ops.rfft(ops.pad(delta, [(0, 0), (0, size - n)]), size)
    product = (a * real - b * imaginary, a * imaginary + b * real)
    return ops.irfft(product, size)[..., :n] * free


def _up_to(bins: Any, steps: Any, m: Any) -> Any:
    """Σ over |j| <= bins of exp(2πi·j·steps/m), Dirichlet's kernel.

    At half the sampling rate (2·bins = m) the bin has no mirror image and counts once.
    """
    from keras import ops

    still = ops.equal(steps, 0)
    whole = ops.cast(2 * bins + 1, "float32") * ops.ones_like(ops.cast(steps, "float32"))
    below = ops.where(still, ops.ones_like(whole), _sine(steps, m))
    value = ops.where(still, whole, _sine(ops.mod((2 * bins + 1) * steps, 2 * m), m) / below)
    parity = 1.0 - 2.0 * ops.cast(ops.mod(steps, 2), "float32")
    return value - ops.cast(ops.equal(2 * bins, m), "float32") * parity


def _sine(k: Any, m: Any) -> Any:
    """sin(π·k/m) of integers 0 <= k < 2m; folded first, so that small values keep their digits."""
    from keras import ops

    second = k >= m
    k = ops.where(second, k - m, k)
    k = ops.minimum(k, m - k)
    value = ops.sin(math.pi * ops.cast(k, "float32") / ops.cast(m, "float32"))
    return ops.where(second, -value, value)
