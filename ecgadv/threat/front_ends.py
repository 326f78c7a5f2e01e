"""F: the front end of a device, on the tensors of an attack and on NumPy arrays.

A front end is linear. A causal one says what it does to arrays, :meth:`FrontEnd.array`, and is
differentiable by its impulse response; another kind says both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt

from ecgadv.errors import ConfigError
from ecgadv.making import instantiate
from ecgadv.options import Frequencies, check_fields
from ecgadv.threat import filters


@dataclass(frozen=True)
class FrontEnd(ABC):
    """Subclasses are frozen dataclasses of their options, which follow the sampling rate.

    Attributes:
        name: as in configurations.
        most: samples of a signal that it can take; None for any number.
        fs: sampling rate in Hz.
    """

    name: ClassVar[str]
    most: ClassVar[int | None] = None
    fs: float = 300.0

    @property
    def removed(self) -> tuple[float, ...]:
        """Frequencies in Hz that it takes out, for figures: its high-pass, then its notches."""
        return ()

    @abstractmethod
    def array(self, p: np.ndarray) -> np.ndarray:
        """(…, n) -> (…, n) float64, in any unit."""

    def __call__(self, p: Any) -> Any:
        """(…, n) tensor -> (…, n) tensor, linear and differentiable."""
        from keras import ops

        n = int(p.shape[-1])
        real, imaginary = (ops.convert_to_tensor(part) for part in self._kept(n, self._response))
        size = 2 * n
        spread = [(0, 0)] * (len(p.shape) - 1)
        a, b = ops.rfft(ops.pad(p, [*spread, (0, n)]), size)
        product = (a * real - b * imaginary, a * imaginary + b * real)
        return ops.irfft(product, size)[..., :n]

    def apply(self, p: Any) -> Any:
        """Either of both, by what it gets."""
        return self.array(p) if isinstance(p, np.ndarray) else self(p)

    def _response(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Real and imaginary part, (n + 1,) float32, of the impulse response zero-padded to 2n.

        The first n samples of a causal filter's output need the first n of its impulse response
        only, so the zero-padded product is exact.
        """
        impulse = np.zeros(n)
        impulse[0] = 1.0
        spectrum = np.fft.rfft(self.array(impulse), 2 * n)
        return spectrum.real.astype(np.float32), spectrum.imag.astype(np.float32)

    def _kept(self, n: int, make: Callable[[int], Any]) -> Any:
        """What ``make`` gives for n samples, made once."""
        kept = self.__dict__.setdefault("_made", {})
        if n not in kept:
            kept[n] = make(n)
        return kept[n]


@dataclass(frozen=True)
class Through(FrontEnd):
    """``none``: everything passes."""

    name: ClassVar[str] = "none"

    def array(self, p: np.ndarray) -> np.ndarray:
        """The same in float64."""
        return np.asarray(p, dtype=np.float64)

    def __call__(self, p: Any) -> Any:
        """The same."""
        return p


@dataclass(frozen=True)
class _Notched(FrontEnd):
    """What the included filters share.

    Attributes:
        high_pass: Hz; None for the filter's own.
        mains: Hz; None for 50 and 60, as far as the sampling rate has them.

    Raises:
        ConfigError: a frequency is not below half the sampling rate.
    """

    usual: ClassVar[tuple[float, tuple[float, ...]]]
    high_pass: Annotated[float, Gt(0)] | None = None
    mains: Frequencies | None = None

    def __post_init__(self) -> None:
        check_fields(self, "filter")
        usual, known = self.usual
        mains = self.mains
        if mains is None:
            mains = [frequency for frequency in known if frequency < self.fs / 2]
        high_pass = usual if self.high_pass is None else self.high_pass
        object.__setattr__(self, "fs", float(self.fs))
        object.__setattr__(self, "high_pass", float(high_pass))
        object.__setattr__(self, "mains", tuple(float(f) for f in mains))
        for frequency in self.removed:
            if not 0 < frequency < self.fs / 2:
                raise ConfigError(
                    f"filter={self.name}: {frequency:g} Hz is not between 0 and half the sampling "
                    f"rate ({self.fs / 2:g} Hz)"
                )

    @property
    def removed(self) -> tuple[float, ...]:
        """High-pass and mains."""
        assert self.high_pass is not None
        assert self.mains is not None
        return (self.high_pass, *self.mains)


@dataclass(frozen=True)
class Rectangular(_Notched):
    """``rectangular``: bins of a 16,384-point DFT dropped, :func:`filters.rectangular`."""

    name: ClassVar[str] = "rectangular"
    most: ClassVar[int | None] = filters.NFFT
    usual = (0.055, (50.0, 60.0))

    def array(self, p: np.ndarray) -> np.ndarray:
        """By the reference filter."""
        return filters.rectangular(p, self.fs, self.removed[0], self.removed[1:])

    def __call__(self, p: Any) -> Any:
        """A few bins of a DFT go: subtracting their waves costs two thin products, not two FFTs."""
        from keras import ops

        waves = ops.convert_to_tensor(self._kept(int(p.shape[-1]), self._waves))
        return p - ops.matmul(ops.matmul(p, ops.transpose(waves)), waves)

    def _waves(self, n: int) -> np.ndarray:
        """(2·bins, n) float32: rows b with F(p) = p − Σ_b b·(bᵀp)."""
        nfft = filters.NFFT
        bins = filters.stopped_bins(self.fs, self.removed[0], self.removed[1:])
        angle = 2 * np.pi * bins[:, None] * np.arange(n)[None, :] / nfft
        # Every bin but the one at half the sampling rate has a mirror image, which goes with it.
        weight = np.where(2 * bins == nfft, 1.0, 2.0)[:, None] / nfft
        waves = np.concatenate([np.cos(angle), np.sin(angle)]) * np.sqrt(np.tile(weight, (2, 1)))
        return waves.astype(np.float32)


@dataclass(frozen=True)
class Butterworth(_Notched):
    """``butterworth``: causal third-order high-pass, then notches, :func:`filters.butterworth`.

    Attributes:
        q: quality factor of the notches.
    """

    name: ClassVar[str] = "butterworth"
    usual = (filters.HIGH_PASS_HZ, filters.MAINS_HZ)
    q: Annotated[float, Gt(0)] = filters.NOTCH_Q

    def array(self, p: np.ndarray) -> np.ndarray:
        """By the reference filter."""
        return filters.butterworth(p, self.fs, self.removed[0], self.removed[1:], self.q)


FRONT_ENDS: dict[str, type[FrontEnd]] = {
    kind.name: kind for kind in (Through, Rectangular, Butterworth)
}


def get(end: str | FrontEnd, fs: float = 300.0) -> FrontEnd:
    """A front end by name, at a sampling rate in Hz.

    Raises:
        ConfigError: there is none of that name, or an object is for another sampling rate.
    """
    if isinstance(end, FrontEnd):
        if end.fs != fs and not isinstance(end, Through):
            raise ConfigError(f"filter={end.name}: made for {end.fs:g} Hz, say fs={fs:g}")
        return end
    if not isinstance(end, str) or end not in FRONT_ENDS:
        raise ConfigError(f"filter={end}: unknown; there are {', '.join(FRONT_ENDS)}")
    return FRONT_ENDS[end](fs=fs)


def from_config(node: Mapping[str, Any], fs: float = 300.0) -> FrontEnd:
    """From an option of the group ``filter``; nodes of earlier runs have a name only.

    Raises:
        ConfigError: there is no such front end, or an option is unknown or out of range.
    """
    given = dict(node)
    if "_target_" not in given:
        kind = type(get(str(given.pop("name")), fs))
        given["_target_"] = f"{kind.__module__}.{kind.__qualname__}"
    made = instantiate(given, fs=fs)
    if not isinstance(made, FrontEnd):
        raise ConfigError(f"filter={node.get('name')}: {given['_target_']} makes no FrontEnd")
    return made
