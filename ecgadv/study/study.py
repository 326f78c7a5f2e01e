"""One experiment: cut into chunks, solve, and have the deployment judge what was found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.attacks.base import Attack, DirectAttack, Problem
from ecgadv.attacks.engine import LARGEST_AUTO, Engine, Solution, choose_precision, chunk_size
from ecgadv.attacks.eot import paper_shifts
from ecgadv.errors import ConfigError
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Judge, Trial, case_seed
from ecgadv.threat.channel import NO_SHIFTS, Channel
from ecgadv.threat.goals import UNTARGETED, Aim
from ecgadv.threat.limits import mask_array
from ecgadv.threat.metrics import Quadratic
from ecgadv.threat.objectives import Cases, Objective
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import valid_mask
from ecgadv.victims.twin import ITSELF, about_twin, twin_of

ROUNDS, MOST_ROUNDS = 128, 1024
"""Sets of views drawn for a case, and for one of an injected signal at most; an attack uses one an
iteration, and a longer one goes round them."""

Tick = Callable[[int, int], None]
Solver = Callable[[Cases, Tick | None], Solution]


@dataclass(frozen=True)
class Chunk:
    """Cases that are attacked together.

    Attributes:
        x: (B, leads·n) standardised, zero-padded records, lead after lead.
        lengths: (B,) own samples.
        source: (B,) class index that must be left; None: what the deployment reads.
        target: (B,) class index, or ``UNTARGETED``.
        mask: (B, leads·n) 1 where δ may differ from 0, beside the attack's own mask; None for all.
        seen: (B, 2) first record and number of records of the pool that a universal signal is made
            from; None for signals of one record.
    """

    x: np.ndarray
    lengths: np.ndarray
    source: np.ndarray | None
    target: np.ndarray
    mask: np.ndarray | None = None
    seen: np.ndarray | None = None

    def rows(self, index: np.ndarray) -> Chunk:
        """The same of some rows."""
        parts = (self.x, self.lengths, self.source, self.target, self.mask, self.seen)
        return Chunk(*(None if part is None else part[index] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Outcome:
    """What came of the cases of a chunk.

    Attributes:
        delta: (B, leads·n) float32; 0 of a case that was skipped.
        source: (B,) class index that had to be left.
        gradients: (B,) evaluations of the victim with a gradient.
        forwards: (B,) evaluations without.
        trials: the judge's verdict on the case's own record; of a universal signal there is none.
        status: ``ok``, ``failed`` or ``skipped``.
        message: the reason where it is not ``ok``.
        history: (B, steps) loss of every iteration, None where the attack keeps none.
        seconds: of the attack, the verdict not counted.
    """

    delta: np.ndarray
    source: np.ndarray
    gradients: np.ndarray
    forwards: np.ndarray
    trials: list[Trial] | None
    status: list[str]
    message: list[str]
    history: np.ndarray | None = None
    seconds: float = 0.0


class Study:
    """An attack on a victim, and the judge of what it finds.

    Args:
        victim: the classifier attacked.
        metric: the distance to be small, over the victim's leads.
        attack: the solver; it never sees the judge.
        judge: the deployment, with the goal.
        seed: of everything random in the attack.
        shifts: random onsets that the attack averages over in an evaluation; 0 for the fixed one.
        channel: how a perturbation arrives, as the attacker models it; None for as it does. Whether
            the onset moves there follows from ``shifts``.

    Raises:
        ConfigError: an option of the attack does not fit the victim or the deployment.
    """

    def __init__(
        self,
        victim: Victim,
        metric: Quadratic,
        attack: Attack | DirectAttack,
        judge: Judge,
        *,
        seed: int = 0,
        shifts: int = 0,
        channel: Channel | None = None,
    ) -> None:
        self.victim, self.metric, self.attack, self.judge = victim, metric, attack, judge
        self.seed, self.shifts = seed, shifts
        lacking = sorted(attack.needs - victim.can)
        if lacking:
            raise ConfigError(
                f"attack={attack.name}: needs {', '.join(lacking)}, which victim {victim.name} "
                "does not give"
            )
        self.padding = bool(getattr(attack, "perturb_padding", False))
        believed = channel or judge.channel
        if believed.injected and shifts and getattr(attack, "schedule", None) == "paper":
            self.shifts = paper_shifts(believed.window or victim.n, victim.n, victim.fs)
        if shifts and not judge.channel.moving:
            raise ConfigError(NO_SHIFTS)
        if isinstance(attack, DirectAttack):
            attack.check(judge.goal, self.shifts, believed.injected)
        for end in (believed.front_end, judge.channel.front_end):
            if end.most is not None and victim.n > end.most:
                raise ConfigError(f"filter={end.name}: {victim.n} samples, at most {end.most}")
        self.channel = replace(believed, moving=shifts > 0)
        self.limits = None
        if isinstance(attack, Attack):
            self.limits = attack.limits_for(victim.fs, victim.leads)
        self.own = self._own_mask()
        self._solvers: dict[tuple[int, str], Solver] = {}

    def _own_mask(self) -> np.ndarray:
        """(n,) 1 on the samples that window and mask of the attack leave, from onset 0 on."""
        n = self.victim.n
        own = np.ones(n, np.float32)
        if self.channel.injected:
            own = (np.arange(n) < (self.channel.window or n)).astype(np.float32)
        spans = getattr(self.attack, "mask", None)
        if spans is not None:
            own = own * mask_array(spans, n, self.victim.fs)
            if not own.any():
                raise ConfigError(f"attack.mask={spans}: has no sample in common with the window")
        if self.limits is not None:
            self.limits.check_span(int(own.sum()))
        return own

    @property
    def first(self) -> int:
        """The first sample that may be perturbed: a shorter record cannot be attacked."""
        return int(self.own.argmax())

    def size(self, wanted: int | str, total: int) -> int:
        """Cases in a chunk, see :func:`ecgadv.attacks.engine.chunk_size`."""
        return chunk_size(self.victim, wanted, total, max(1, self.shifts))

    def precision(self, wanted: str, total: int, size: int) -> tuple[str, str]:
        """Arithmetic of the gradients and why, see :func:`choose_precision`."""
        return choose_precision(wanted, self.attack, self.victim, total, size)

    @property
    def differentiated(self) -> str:
        """What the attack differentiates, see :func:`ecgadv.victims.twin.about_twin`."""
        return about_twin(self.victim) if isinstance(self.attack, Attack) else ITSELF

    def objective(self, victim: Victim, width: int) -> Objective:
        """What the attack optimises, on the victim or on a twin of it in another precision.

        Injected signals are seen in so many turns that a gradient needs no more memory than the
        largest chunk of single readings.
        """
        at_once = max(1, LARGEST_AUTO[backend.device_kind()] // width)
        pool, clean = self.channel.pool, None
        if pool is not None:
            spans, still = np.full(len(pool), victim.n), [np.zeros(1, np.int64)] * len(pool)
            clean = np.concatenate(self.judge.clean(pool, spans, still))
        return Objective(victim, self.judge.goal, self.channel, self.shifts, at_once, clean)

    def solver(self, width: int, precision: str = "float32") -> Solver:
        """The compiled attack on chunks of ``width`` cases, kept for the next ones."""
        key = (width, precision)
        if key not in self._solvers:
            # Solvers of other libraries get the network as it is.
            own = isinstance(self.attack, Attack)
            victim = twin_of(self.victim) if own else self.victim
            exact = self.objective(victim, width)
            problem = Problem(exact, self.metric, self.seed)
            if precision != "float32":
                coarse = self.objective(twin_of(self.victim, precision), width)
                problem = Problem(coarse, self.metric, self.seed, exact)
            self._solvers[key] = Engine(self.attack, problem).run
        return self._solvers[key]

    def cases(self, chunk: Chunk, source: np.ndarray, clean: np.ndarray | None = None) -> Cases:
        """Everything that decides the cases of a chunk, as the engine takes it.

        Args:
            chunk: the cases.
            source: (B,) class index that must be left.
            clean: (B, C) logits of the unperturbed records.

        Raises:
            ConfigError: a mask leaves no sample free, or has gaps where there is a band.
        """
        span = self.span(chunk.lengths)
        valid, free = self._samples(chunk)
        if not free.any(axis=1).all():
            raise ConfigError("mask: leaves no sample of some case free")
        if self.limits is not None:
            self.limits.check_free(free)
        seeds = [
            case_seed(self.seed, x, int(t)) for x, t in zip(chunk.x, chunk.target, strict=True)
        ]
        rounds = ROUNDS if self.shifts else 1
        if self.channel.injected and (self.shifts or chunk.seen is not None):
            assert isinstance(self.attack, Attack)
            rounds = min(self.attack.max_steps(), MOST_ROUNDS)
        views = self.channel.draw(seeds, span, self.shifts, rounds, chunk.seen)
        return Cases(chunk.x, valid, free, source, chunk.target, span, views, clean)

    def _samples(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
        """(B, leads·n) 1 on the samples that std(·) counts, and on those that may change."""
        leads = self.victim.leads
        valid = np.tile(valid_mask(self.span(chunk.lengths), self.victim.n), (1, leads))
        free = valid * np.tile(self.own, leads)
        return valid, free if chunk.mask is None else free * chunk.mask

    def _too_short(self, chunk: Chunk) -> list[str]:
        """Why a band cannot be kept on what may change of each record; "" where it can."""
        if self.limits is None or self.limits.band is None:
            return [""] * len(chunk.x)
        reasons = []
        for free in self._samples(chunk)[1]:
            try:
                self.limits.check_span(int(free.sum()) // self.victim.leads)
                reasons.append("")
            except ConfigError as error:
                reasons.append(str(error))
        return reasons

    def span(self, lengths: np.ndarray) -> np.ndarray:
        """(B,) samples that std(·) counts: all of them where the padding is perturbed too."""
        return np.full(len(lengths), self.victim.n) if self.padding else np.asarray(lengths)

    def run(
        self,
        chunk: Chunk,
        *,
        width: int | None = None,
        precision: str = "float32",
        solve: Solver | None = None,
        tick: Tick | None = None,
        meter: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> Outcome:
        """Attack a chunk of cases, then judge what was found.

        Args:
            chunk: the cases.
            width: rows that the solver gets, filled up so that no new shape is compiled; None for
                as many as there are cases.
            precision: of the gradients.
            solve: takes the place of the attack (of another library).
            tick: called as tick(cases done, step).
            meter: a context around the attack alone.
        """
        count = len(chunk.x)
        width = width or count
        spans = self.span(chunk.lengths)
        own = chunk.seen is None
        onsets = [
            self.judge.onsets(x, int(t), int(s))
            for x, t, s in zip(chunk.x, chunk.target, spans, strict=True)
        ]
        clean = self.judge.clean(chunk.x, spans, onsets) if own else []
        source = chunk.source
        if source is None:
            source = np.array([most_read(logits) for logits in clean], dtype=np.int64)
        status, message = ["ok"] * count, [""] * count
        if own:
            for i, logits in enumerate(clean):
                reason = self._absent(logits, len(onsets[i]), int(source[i]), int(chunk.target[i]))
                if reason:
                    status[i], message[i] = "skipped", reason
        for i, reason in enumerate(self._too_short(chunk)):
            if reason:
                status[i], message[i] = "skipped", reason
        live = np.flatnonzero([s == "ok" for s in status])
        delta = np.zeros_like(chunk.x, dtype=np.float32)
        gradients, forwards = np.zeros(count, np.int64), np.zeros(count, np.int64)
        history, seconds = None, 0.0
        if len(live):
            # Rows that are missing, or no cases, are filled up with a case that is one.
            rows = np.full(width, live[0])
            rows[live] = live
            before = np.array([logits.mean(0) for logits in clean])[rows] if own else None
            cases = self.cases(chunk.rows(rows), source[rows], before)
            solver = solve or self.solver(width, precision)
            with meter():
                started = time.perf_counter()
                found = solver(cases, tick)
                seconds = time.perf_counter() - started
            delta[live] = found.delta[live]
            gradients[live], forwards[live] = found.gradients[live], found.forwards[live]
            history = None if found.history is None else found.history[:count]
            for i in live[found.broken[live]].tolist():
                at = f" at step {found.broken_at[i]}" if found.broken_at[i] else ""
                status[i], message[i] = "failed", f"the gradient is not finite{at}"
        trials = None
        if own:
            trials = self.judge.trials(
                chunk.x, delta, spans, source, chunk.target, onsets=onsets, clean=clean
            )
            for i in live.tolist():
                if status[i] == "ok" and not np.isfinite(trials[i].margin):
                    status[i] = "failed"
                    message[i] = "the victim's outputs on the perturbed recording are not finite"
        return Outcome(
            delta, source, gradients, forwards, trials, status, message, history, seconds
        )

    def _absent(self, clean: np.ndarray, count: int, source: int, target: int) -> str:
        """Why the deployment has no such case; "" where it has."""
        names = self.victim.classes
        if not np.isfinite(clean).all():
            return "the victim's outputs on it are not finite"
        if target == source:
            return f"it is read as {names[target]}, the target, before anything is added"
        goal, before = self.judge.goal, np.broadcast_to(clean, (count, clean.shape[1]))
        n_clean = int(
            goal.stands(before, Aim(np.full(count, source), np.full(count, target), before)).sum()
        )
        if 2 * n_clean >= count:
            return ""
        read = most_read(clean)
        if read == source and (clean.argmax(1) == source).all():
            return f"goal={goal.name} is reached before anything is added"
        if not self.judge.channel.moving or self.judge.channel.injected:
            return f"it is read as {names[read]}, not as {names[source]}, before anything is added"
        return (
            f"it is read as {names[source]} at {n_clean} of {count} random onsets before anything "
            "is added, at fewer than half"
        )


def most_read(logits: np.ndarray) -> int:
    """The class that most readings give, (K, C)."""
    return int(np.bincount(logits.argmax(1), minlength=logits.shape[1]).argmax())


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
    """Rows of chunks of ``size``, the last one shorter."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def class_indices(
    specs: Sequence[CaseSpec], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Class indices of source and target, (B,) each."""
    # Toward a target the class left does not matter, so one of many classes needs none.
    source = np.array([0 if s.source == ANY else classes.index(s.source) for s in specs])
    target = np.array([UNTARGETED if s.target == ANY else classes.index(s.target) for s in specs])
    return source, target
