"""How a perturbation reaches the classifier: four ways, by who changes what and who reads it.

| | cloud | local |
|---|---|---|
| type1 | std(x + δ) | std(S_τ(x + δ)): edited, read by a device from another onset |
| type2 | std(x + S_τ p): injected, stored unfiltered | std(x + F(S_τ p)): injected at a device |
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.threat.transforms import FrontEnd, onset_count, shift_array
from ecgadv.victims.pipeline import shift_indices

ORDERS = ("shift_filter", "filter_shift")

NO_SHIFTS = (
    "eot=shift: with threat_model=type1 deployment=cloud a recording is read as it is stored, so "
    "there are no shifts to average over; use deployment=local, or eot=none"
)


@dataclass(frozen=True)
class Channel:
    """One of the four ways, on NumPy arrays in float64.

    Attributes:
        injected: whether the perturbation alone moves (type2), not the recording.
        moving: whether the onset is drawn at random; else it is 0.
        window: samples that an injected signal lasts; None for the whole recording.
        front_end: F, what an injected signal passes.
        order: ``shift_filter``, what a device does, or ``filter_shift``, the released code's order.
        leads: of a recording; the same onset on all of them.

    Raises:
        ConfigError: an unknown order.
    """

    injected: bool = False
    moving: bool = False
    window: int | None = None
    front_end: FrontEnd = field(default_factory=FrontEnd)
    order: str = "shift_filter"
    leads: int = 1

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"evaluation.order={self.order}: must be one of {', '.join(ORDERS)}")

    def onset_count(self, span: int) -> int:
        """Number of onsets in a recording of ``span`` own samples."""
        if not self.moving:
            return 1
        return onset_count(self.window or span, span) if self.injected else span

    def draw(self, stream: np.random.Generator, span: int, count: int) -> np.ndarray:
        """(count,) int64 uniform onsets; one onset 0 where it does not move."""
        if not self.moving:
            return np.zeros(1, dtype=np.int64)
        return stream.integers(0, self.onset_count(span), count)

    def arrive(
        self, x: np.ndarray, delta: np.ndarray | None, span: int, onsets: np.ndarray
    ) -> np.ndarray:
        """What the classifier's pipeline gets, before standardisation.

        Args:
            x: (leads·n,) a recording, lead after lead.
            delta: (leads·n,) perturbation in the unit of ``x``; None for the recording as it is.
            span: samples that std(·) counts.
            onsets: (K,) from :meth:`draw`.

        Returns:
            (K, leads·n); one row where ``delta`` is None and the recording itself does not move.
        """
        clean = np.asarray(x, np.float64)
        n = len(clean) // self.leads
        if self.injected:
            if delta is None:
                return clean[None]
            return clean + self._sent(np.asarray(delta, np.float64), onsets)
        signal = clean if delta is None else clean + np.asarray(delta, np.float64)
        if not self.moving:
            return signal[None]
        index = shift_indices(np.asarray(onsets)[None], np.array([span]), n)[0]
        return np.concatenate([lead[index] for lead in signal.reshape(self.leads, n)], axis=1)

    def _sent(self, p: np.ndarray, onsets: np.ndarray) -> np.ndarray:
        """F(S_τ p), or S_τ F(p), of every lead: (leads·n,) and (K,) -> (K, leads·n)."""
        out = []
        for lead in p.reshape(self.leads, -1):
            if self.order == "filter_shift":
                out.append(shift_array(self.front_end.array(lead), onsets))
            else:
                out.append(self.front_end.array(shift_array(lead, onsets)))
        return np.concatenate(out, axis=1)
