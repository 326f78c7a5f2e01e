"""How a perturbation reaches the classifier: four ways, by who changes what and who reads it.

| | cloud | local |
|---|---|---|
| type1 | std(x + δ) | std(S_τ(x + δ)): edited, read by a device from another onset |
| type2 | std(x + S_τ p): injected, stored unfiltered | std(x + F(S_τ p)): injected at a device |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.threat.both import ops_of
from ecgadv.threat.front_ends import FrontEnd, Through
from ecgadv.threat.transforms import onset_count, shift

ORDERS = ("shift_filter", "filter_shift")

NO_SHIFTS = (
    "eot=shift: with threat_model=type1 deployment=cloud a recording is read as it is stored, so "
    "there are no shifts to average over; use deployment=local, or eot=none"
)


class Views(NamedTuple):
    """Readings of each case, tensors or arrays of one shape, int32.

    Attributes:
        record: which recording of the pool; 0 where a case has its own.
        onset: τ in samples.
    """

    record: Any
    onset: Any


@dataclass(frozen=True)
class Channel:
    """One of the four ways, for the tensors of an attack and the float64 arrays of its judge.

    Attributes:
        injected: whether the perturbation alone moves (type2), not the recording.
        moving: whether the onset is drawn at random; else it is 0.
        window: samples that an injected signal lasts; None for the whole recording.
        front_end: F, what an injected signal passes.
        order: ``shift_filter``, what a device does, or ``filter_shift``, the released code's order.
        leads: of a recording; the same onset on all of them.
        pool: (R, leads·n) standardised recordings that one injected signal is for; None where each
            case has its own.

    Raises:
        ConfigError: an unknown order.
    """

    injected: bool = False
    moving: bool = False
    window: int | None = None
    front_end: FrontEnd = field(default_factory=Through)
    order: str = "shift_filter"
    leads: int = 1
    pool: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"evaluation.order={self.order}: must be one of {', '.join(ORDERS)}")

    def onset_count(self, span: int) -> int:
        """Number of onsets in a recording of ``span`` own samples."""
        if not self.moving:
            return 1
        return onset_count(self.window or span, span) if self.injected else span

    def draw(
        self,
        seeds: Sequence[Any],
        spans: Sequence[int] | np.ndarray,
        count: int,
        rounds: int = 1,
        seen: np.ndarray | None = None,
    ) -> Views:
        """Random views, uniform over onsets and recordings; each case from its own seed.

        Args:
            seeds: (B,) one a case, so that a batch mate never changes them; anything that
                ``numpy.random.default_rng`` takes.
            spans: (B,) own samples of each recording.
            count: K, views in a set; one where the onset does not move.
            rounds: sets drawn; an attack uses one an iteration and goes round.
            seen: (B, 2) first recording and number of recordings of the pool that a case is for;
                where the onset does not move, they take turns. None without a pool.

        Returns:
            (B, rounds, K).
        """
        size = (rounds, count if self.moving else 1)
        records, onsets = [], []
        for i, (seed, span) in enumerate(zip(seeds, spans, strict=True)):
            rng = np.random.default_rng(seed)
            still = np.zeros(size, np.int64)
            onsets.append(rng.integers(0, self.onset_count(span), size) if self.moving else still)
            first, several = (0, 1) if seen is None else (int(v) for v in seen[i])
            if self.moving and several > 1:
                record = rng.integers(0, several, size)
            else:
                record = still + np.arange(rounds)[:, None] % several
            records.append(first + record)
        return Views(np.array(records, np.int32), np.array(onsets, np.int32))

    def arrive(self, x: Any, delta: Any, views: Views, spans: Any) -> Any:
        """What the classifier's pipeline gets, before standardisation.

        Args:
            x: (B, leads·n) recordings, lead after lead; unused where there is a pool.
            delta: (B, leads·n) perturbations in the unit of ``x``; None for the recordings as they
                are.
            views: (B, K) each.
            spans: (B,) samples that std(·) counts.

        Returns:
            (B, K, leads·n); K is 1 where nothing moves.
        """
        xp = ops_of(x)
        if not self.injected:
            signal = x if delta is None else x + delta
            # A device that starts τ samples late sees sample i + τ first.
            return self._by_lead(signal, -views.onset, spans)
        if self.pool is None:
            base = x[:, None]
        else:
            base = xp.take(xp.array(np.asarray(self.pool, np.float32)), views.record, axis=0)
        return base if delta is None else base + self._sent(delta, views.onset)

    def _sent(self, p: Any, onsets: Any) -> Any:
        """F(S_τ p), or S_τ F(p), of every lead: (B, leads·n) and (B, K) -> (B, K, leads·n)."""
        if self.order == "filter_shift":
            n = p.shape[-1]
            rows = ops_of(p).reshape(p, (-1, n // self.leads))
            return self._by_lead(ops_of(p).reshape(self.front_end.apply(rows), (-1, n)), onsets)
        return self._by_lead(p, onsets, filtered=True)

    def _by_lead(self, signal: Any, onsets: Any, spans: Any = None, filtered: bool = False) -> Any:
        """Every lead shifted by the same onsets: (B, leads·n) and (B, K) -> (B, K, leads·n)."""
        xp, leads = ops_of(signal), self.leads
        whole = signal.shape[-1]
        rows = xp.reshape(signal, (-1, whole // leads))
        if self.moving:
            each = (part for part in (onsets, spans) if part is not None)
            rows = shift(rows, *(xp.repeat(part, leads, axis=0) for part in each))
        else:
            rows = rows[:, None]
        if filtered:
            rows = self.front_end.apply(rows)
        apart = xp.reshape(rows, (-1, leads, rows.shape[1], rows.shape[2]))
        return xp.reshape(xp.transpose(apart, (0, 2, 1, 3)), (-1, rows.shape[1], whole))
