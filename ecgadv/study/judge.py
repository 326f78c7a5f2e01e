"""The verdict on a perturbation, by the whole deployed pipeline in float32, after the attack.

A case exists only where the deployment reads the unperturbed recording as its source: at a fixed
onset there, at random onsets at half of the judge's at least. Rates at random onsets are over the
onsets at which the unperturbed recording is read as its source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ecgadv.threat.channel import Channel, Views
from ecgadv.threat.goals import Aim, Exclusive, Goal
from ecgadv.victims.loading import Victim

SUCCESS_RATE = 0.5
"""Share of onsets at which the deployment must read the source before, and the target after."""

KEY_SAMPLES, KEY_STEP = 256, 0.02
"""Samples of a recording, and the rounding of them, that its random numbers come from."""


def record_key(x: np.ndarray) -> int:
    """A number that stands for a standardised recording, (leads·n,) -> 32 bits.

    Rounded samples, so that another processor's last digit gives the same number.
    """
    picks = np.linspace(0, len(x) - 1, KEY_SAMPLES).astype(int)
    coarse = np.round(np.asarray(x, np.float64)[picks] / KEY_STEP).astype("<i4")
    return int.from_bytes(hashlib.blake2b(coarse.tobytes(), digest_size=4).digest(), "little")


def case_seed(seed: int, x: np.ndarray, target: int) -> int:
    """A seed of its own for every case, whatever batch, order or interface it comes by."""
    return int(np.random.SeedSequence([seed, record_key(x), target + 1]).generate_state(1)[0])


@dataclass(frozen=True)
class Trial:
    """One perturbation on one recording at K onsets, or several such together.

    Attributes:
        hits: (C,) onsets at which each class is read.
        n_clean: onsets at which the unperturbed recording is read as its source.
        n_success: of those, the ones that reach the target by the definition of success.
        n_left: of ``n_clean``, the ones at which any other class than the source is read.
        p_target: mean probability of the target (untargeted: of leaving the source).
        margin: mean lead of the target's logit (untargeted: of the best other class's).
        clean: (C,) onsets at which each class is read in the unperturbed recording.
        onsets: (K,).
        read: (K,) class index read at each.
        counts: (K,) bool, those of ``n_clean``.
    """

    hits: np.ndarray
    n_clean: int
    n_success: int
    n_left: int
    p_target: float
    margin: float
    clean: np.ndarray
    onsets: np.ndarray
    read: np.ndarray
    counts: np.ndarray

    @property
    def n_shifts(self) -> int:
        """Onsets tried."""
        return len(self.read)

    @property
    def exists(self) -> bool:
        """Whether the deployment reads the unperturbed recording as its source often enough."""
        return self.n_clean > 0 and self.n_clean >= SUCCESS_RATE * self.n_shifts

    @property
    def rate(self) -> float:
        """Share of the onsets of ``n_clean`` that reach the target; NaN where there is none."""
        return self.n_success / self.n_clean if self.n_clean else float("nan")

    @property
    def success(self) -> bool:
        """A case that exists and reaches the target at half of its onsets at least."""
        return self.exists and self.rate >= SUCCESS_RATE

    @property
    def left(self) -> bool:
        """A case that exists and is read as another class at half of its onsets at least."""
        return self.exists and self.n_left >= SUCCESS_RATE * self.n_clean

    @property
    def predicted(self) -> int:
        """The class that is read most often."""
        return int(self.hits.argmax())


def trial_of(
    clean: np.ndarray,
    logits: np.ndarray,
    source: int,
    target: int,
    *,
    onsets: np.ndarray | None = None,
    finite: bool = True,
    goal: Goal | None = None,
) -> Trial:
    """A trial from its readings.

    Args:
        clean: (K, C), or (1, C) where all onsets give the same, of the unperturbed recording.
        logits: (K, C) of the perturbed one.
        source: class index that must be left.
        target: class index, or ``UNTARGETED``.
        onsets: (K,); None for 0.
        finite: whether the perturbation is finite; one that is not reaches nothing.
        goal: what is wanted; None for a class.
    """
    count, classes = logits.shape
    goal = goal or Exclusive()
    clean = np.broadcast_to(clean, logits.shape)
    aim = Aim(np.full(count, source), np.full(count, target), clean)
    known = goal.stands(clean, aim)
    with np.errstate(invalid="ignore"):
        lead = goal.margin(np.asarray(logits, np.float64), aim)
        p = goal.probability(logits, aim)
    sound = finite & np.isfinite(logits).all(1)
    reached = finite & goal.reached(logits, aim)
    read = logits.argmax(1)
    before = clean.argmax(1)[np.isfinite(clean).all(1)]
    return Trial(
        hits=np.bincount(read, minlength=classes),
        n_clean=int(known.sum()),
        n_success=int((reached & known).sum()),
        n_left=int((sound & known & (read != source)).sum()),
        p_target=float(p.mean()),
        margin=float(lead.mean()),
        clean=np.bincount(before, minlength=classes),
        onsets=np.zeros(count, np.int64) if onsets is None else np.asarray(onsets),
        read=read,
        counts=known,
    )


def pooled(trials: Sequence[Trial]) -> Trial:
    """Several trials as one, at least one; every onset counts the same."""
    weight = np.array([t.n_shifts for t in trials], np.float64)
    return Trial(
        hits=np.sum([t.hits for t in trials], axis=0),
        n_clean=sum(t.n_clean for t in trials),
        n_success=sum(t.n_success for t in trials),
        n_left=sum(t.n_left for t in trials),
        p_target=float(np.average([t.p_target for t in trials], weights=weight)),
        margin=float(np.average([t.margin for t in trials], weights=weight)),
        clean=np.sum([t.clean for t in trials], axis=0),
        onsets=np.concatenate([t.onsets for t in trials]),
        read=np.concatenate([t.read for t in trials]),
        counts=np.concatenate([t.counts for t in trials]),
    )


def untried(classes: int) -> Trial:
    """The trial of a perturbation for which there is no recording; it does not exist."""
    none, nan = np.zeros(0, np.int64), float("nan")
    counted = np.zeros(classes, np.int64)
    return Trial(counted, 0, 0, 0, nan, nan, counted, none, none, none.astype(bool))


@dataclass(frozen=True)
class Judge:
    """The deployment as it will be, which no attack's draws or account can touch.

    Attributes:
        victim: who reads.
        channel: how a perturbation reaches it.
        goal: what counts as reached.
        shifts: random onsets on each recording, where the onset moves.
        seed: of the onsets, which come from a stream of their own.
    """

    victim: Victim
    channel: Channel = field(default_factory=Channel)
    goal: Goal = field(default_factory=Exclusive)
    shifts: int = 100
    seed: int = 0

    def onsets(
        self, x: np.ndarray, target: int, span: int, other: np.ndarray | None = None
    ) -> np.ndarray:
        """(K,) onsets of a case on its own recording, or on an ``other`` one, (leads·n,) each."""
        stream = [case_seed(self.seed, x, target), 1]
        if other is not None:
            stream += [record_key(other)]
        return self.channel.draw([stream], [span], self.shifts).onset[0, 0]

    def read(
        self, x: np.ndarray, delta: np.ndarray | None, span: int, onsets: np.ndarray
    ) -> np.ndarray:
        """(K, C) logits of one recording at its onsets, see :meth:`Channel.arrive`."""
        added = None if delta is None else delta[None]
        arriving = self._arriving(x[None], added, np.array([span]), onsets[None])[0]
        return self._logits(arriving, np.full(len(arriving), span))

    def _arriving(
        self, x: np.ndarray, delta: np.ndarray | None, spans: np.ndarray, onsets: np.ndarray
    ) -> np.ndarray:
        """(B, K, leads·n) float64."""
        added = None if delta is None else np.asarray(delta, np.float64)
        views = Views(np.zeros_like(onsets), onsets)
        return np.asarray(self.channel.arrive(np.asarray(x, np.float64), added, views, spans))

    def _logits(self, signal: np.ndarray, spans: np.ndarray) -> np.ndarray:
        return self.victim.logits(self.victim.standardise_array(signal, spans))

    def clean(
        self, x: np.ndarray, spans: np.ndarray, onsets: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Logits of unperturbed recordings, (B, leads·n) -> B arrays (K or 1, C)."""
        if not self.channel.moving or self.channel.injected:
            return list(self._logits(np.asarray(x, np.float64), spans)[:, None, :])
        return [self.read(r, None, int(s), o) for r, s, o in zip(x, spans, onsets, strict=True)]

    def trials(
        self,
        x: np.ndarray,
        delta: np.ndarray,
        spans: np.ndarray,
        source: np.ndarray,
        target: np.ndarray,
        *,
        onsets: Sequence[np.ndarray] | None = None,
        clean: Sequence[np.ndarray] | None = None,
    ) -> list[Trial]:
        """Judge stored perturbations, each on the recording that it was made from.

        Args:
            x: (B, leads·n) float32 standardised records, lead after lead.
            delta: (B, leads·n) float32 perturbations, as stored.
            spans: (B,) samples that std(·) counts (n where the padding is perturbed too).
            source: (B,) class indices.
            target: (B,) class indices, ``UNTARGETED`` for any other class.
            onsets: B arrays (K,); None draws those of the cases.
            clean: from :meth:`clean` at the same onsets; None reads them.
        """
        if onsets is None:
            onsets = [
                self.onsets(r, int(t), int(s)) for r, t, s in zip(x, target, spans, strict=True)
            ]
        if clean is None:
            clean = self.clean(x, spans, onsets)
        finite = np.isfinite(delta).all(axis=1)
        added = np.where(finite[:, None], delta, 0).astype(np.float64)
        if self.channel.moving:
            # One case after another: all onsets of all cases do not fit into memory.
            each = zip(x, added, spans.astype(int).tolist(), onsets, strict=True)
            read = [self.read(*one) for one in each]
        else:
            still = np.zeros((len(x), 1), np.int32)
            together = self._arriving(x, added, spans, still)[:, 0]
            read = list(self._logits(together, spans)[:, None, :])
        parts = zip(clean, read, source.tolist(), target.tolist(), onsets, finite, strict=True)
        return [
            trial_of(before, after, at, to, onsets=o, finite=bool(ok), goal=self.goal)
            for before, after, at, to, o, ok in parts
        ]

    def on_other(
        self, x: np.ndarray, target: int, delta: np.ndarray, other: np.ndarray, source: int
    ) -> Trial:
        """Judge a perturbation made from ``x`` on another whole recording of class ``source``."""
        span = len(other) // self.victim.leads
        onsets = self.onsets(x, target, span, other)
        (trial,) = self.trials(
            other[None], delta[None], np.array([span]), np.array([source]), np.array([target]),
            onsets=[onsets],
        )  # fmt: skip
        return trial
