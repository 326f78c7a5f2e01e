"""Runs an attack over a chunk of cases: compile once, step, drop what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from ecgadv import backend
from ecgadv.attacks.base import Attack, DirectAttack, Found, Problem
from ecgadv.errors import ConfigError, VictimError
from ecgadv.threat.metrics import Factor
from ecgadv.threat.objectives import Cases
from ecgadv.victims.loading import Victim
from ecgadv.victims.twin import twin_of

LARGEST_AUTO = {"cpu": 24, "gpu": 512}
"""Largest chunk that ``auto`` chooses: beyond it a gradient per case gets no cheaper."""


def chunk_size(victim: Victim, wanted: int | str, total: int, views: int = 1) -> int:
    """Cases attacked at once, evened out over the chunks that ``total`` cases need.

    ``auto`` counts about four copies of every activation of the victim in float32 (forward,
    gradient, workspace, slack) and takes at most a quarter of the free memory.

    Args:
        victim: the classifier.
        wanted: a number, or ``auto``.
        total: cases in all.
        views: shifted copies of each case in one evaluation.
    """
    if wanted == "auto":
        import psutil

        each = 16 * views * victim.activations
        fits = int(0.25 * psutil.virtual_memory().available // each)
        size = max(1, min(LARGEST_AUTO[backend.device_kind()] // views, fits))
    else:
        size = int(wanted)
    chunks = -(-max(total, 1) // size)
    return -(-max(total, 1) // chunks)


WORTH_MEASURING = 15_000
"""Gradients in all from which ``auto`` times both precisions; below, compiling costs more."""

ROUNDS, MEASURED = 5, 6
"""Rounds in which the precisions are timed in turn, and cases at most of such a gradient."""

FASTER = 0.85
"""Share of float32's time that bfloat16 must not exceed to be chosen: no moment's load tips it."""

ALIKE = 0.9
"""Cosine of bfloat16's gradients to float32's, at the median, below which it is not chosen."""


def choose_precision(
    wanted: str, attack: Attack | DirectAttack, victim: Victim, total: int, size: int
) -> tuple[str, str]:
    """The arithmetic of the gradients, and why.

    Args:
        wanted: ``float32``, ``bfloat16`` or ``auto`` (whichever a short measurement finds faster).
        attack: only attacks that end with a float32 search take bfloat16.
        victim: only Keras models can be recast.
        total: cases in all.
        size: cases at once.

    Raises:
        ConfigError: bfloat16 was asked for and cannot be had.
    """
    coarse = isinstance(attack, Attack) and attack.coarse_gradients
    if wanted == "bfloat16":
        if not coarse:
            raise ConfigError(
                f"precision=bfloat16: attack={attack.name} judges its own iterates, so it stays in "
                "float32"
            )
        twin_of(victim, "bfloat16")
        return "bfloat16", "as asked"
    if wanted == "float32" or not coarse or victim.model is None:
        return "float32", "as asked" if wanted == "float32" else "the only one here"
    assert isinstance(attack, Attack)
    weight = max(1, victim.model.count_params() // 1_000_000)
    if total * attack.max_steps() * weight < WORTH_MEASURING:
        return "float32", "too little work to measure"
    return _faster(victim, min(size, MEASURED))


def _faster(victim: Victim, size: int) -> tuple[str, str]:
    """The precision whose gradients take less time, and the figures."""
    try:
        twins = twin_of(victim), twin_of(victim, "bfloat16")
    except VictimError as error:
        return "float32", str(error)
    networks = [_gradient(twin) for twin in twins]
    x = backend.tensor(np.random.default_rng(0).standard_normal((size, victim.width)), "float32")
    first, second = (backend.to_numpy(gradient(x)[1]).astype(np.float64) for gradient in networks)
    seconds = np.zeros((ROUNDS, 2))
    for row in seconds:
        # In turn, so that what else the machine does falls on both alike.
        for column, gradient in enumerate(networks):
            started = time.perf_counter()
            backend.to_numpy(gradient(x)[1])
            row[column] = time.perf_counter() - started
    share = float(np.median(seconds[:, 1] / seconds[:, 0]))
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = float(np.median((first * second).sum(axis=1) / np.maximum(sizes, 1e-300)))
    one, other = 1e3 * np.median(seconds, axis=0) / size
    told = (
        f"a gradient takes {one:.2f} ms in float32, bfloat16 {share:.2f} of that ({other:.2f} ms; "
        f"medians of {ROUNDS}, at most {FASTER} is worth it)"
    )
    if not cosine >= ALIKE:
        return "float32", f"{told}, but points elsewhere (cosine {cosine:.2f})"
    return "bfloat16" if share <= FASTER else "float32", told


def _gradient(victim: Victim) -> Callable[[Any], Any]:
    """A compiled gradient of a logit."""

    def energy(x: Any) -> tuple[Any, Any]:
        logits = victim.forward(x)
        return logits[:, 0], logits

    return backend.compile(backend.value_and_grad(energy))


@dataclass(frozen=True)
class Solution:
    """What a solver believes it found; nothing here is verified.

    Attributes:
        delta: (B, n) float32, finite: of a broken case the last finite one, or 0.
        success: (B,) bool; never of a broken case.
        gradients: (B,) int.
        forwards: (B,) int.
        history: (B, steps) loss of every iteration, None where the attack does not keep it.
        broken: (B,) bool, a gradient, margin or loss was not finite, so the attack ended there.
            Where it is not given: δ was not finite.
        broken_at: (B,) int, the step of the attack at which that was, from 1; 0 where unknown.
    """

    delta: np.ndarray
    success: np.ndarray
    gradients: np.ndarray
    forwards: np.ndarray
    history: np.ndarray | None = None
    broken: Any = None
    broken_at: Any = None

    def __post_init__(self) -> None:
        lost = ~np.isfinite(self.delta).all(axis=1)
        at = np.zeros(len(lost), np.int64) if self.broken_at is None else self.broken_at
        broken = lost | (at > 0 if self.broken is None else self.broken)
        for name, value in (
            ("delta", np.where(lost[:, None], np.float32(0), self.delta)),
            ("success", np.asarray(self.success) & ~broken),
            ("broken", broken),
            ("broken_at", at),
        ):
            object.__setattr__(self, name, value)


class _Watched(NamedTuple):
    """The state of an attack, and when a case broke.

    Attributes:
        state: the attack's own.
        step: (B,) int32 steps done.
        broken_at: (B,) int32 step at which the case broke, 0 while it is whole.
    """

    state: Any
    step: Any
    broken_at: Any


class Engine:
    """A compiled attack, reused for every chunk of the same shape.

    Args:
        attack: the solver.
        problem: objective, metric and seed.
    """

    def __init__(self, attack: Attack | DirectAttack, problem: Problem) -> None:
        if isinstance(attack, Attack):
            victim = problem.objective.victim
            problem = replace(problem, limits=attack.limits_for(victim.fs, victim.leads))
        self.problem = problem
        self._direct = attack.solver(problem) if isinstance(attack, DirectAttack) else None
        if isinstance(attack, DirectAttack):
            return
        self.attack = attack
        self._init = backend.compile(self._init_pure)
        self._step = backend.compile(self._step_pure)
        self._finish = backend.compile(self._finish_pure)
        self._done = backend.compile(lambda run: attack.found(run.state).done)

    def _init_pure(self, cases: Cases, factor: Factor) -> _Watched:
        from keras import ops

        state = self.attack.init(self.problem, cases, factor)
        none = ops.cast(ops.zeros_like(cases.x[:, 0]), "int32")
        return _Watched(state, none, none)

    def _step_pure(self, cases: Cases, factor: Factor, run: _Watched) -> _Watched:
        """A step of every case; one that is not finite, or was not before, stays as it was."""
        from keras import ops

        seen: list[Any] = []
        state = self.attack.step(replace(self.problem, seen=seen), cases, factor, run.state)
        step, broken_at = run.step + 1, run.broken_at
        # Of a case that is done or broken already, nothing counts any more.
        over = ops.logical_or(self.attack.found(run.state).done, broken_at > 0)
        for finite in seen:
            broken_at = ops.where(ops.logical_or(finite, over), broken_at, step)
        return _Watched(_where(broken_at > 0, run.state, state), step, broken_at)

    def _finish_pure(self, cases: Cases, factor: Factor, run: _Watched) -> tuple[Found, Any]:
        state = self.attack.finish(self.problem, cases, factor, run.state)
        return self.attack.found(state), run.broken_at

    def factor(self, free: np.ndarray) -> Factor:
        """The metric's factor on the free samples of a chunk, shared where the masks allow it."""
        n = free.shape[1]
        length = free.sum(1).astype(int)
        if ((np.arange(n)[None, :] < length[:, None]) == (free > 0)).all():
            # Leading samples only: the factor runs top-down, so all records share the full one.
            whole = self.problem.metric.factor(n)
            return whole._replace(free=free.astype(np.float64))
        return self.problem.metric.factor(n, free > 0)

    def run(self, cases: Cases, tick: Callable[[int, int], None] | None = None) -> Solution:
        """Attack one chunk.

        Args:
            cases: NumPy arrays, see :class:`Cases`.
            tick: called as tick(cases done, step) at every look.

        Returns:
            A row per case, in order. A case whose gradient, margin or loss is not finite ends there
            and is ``broken``; its batch mates are none the wiser.
        """
        if self._direct is not None:
            direct = self._direct(cases)
            return Solution(
                direct.delta, direct.success, direct.gradients, direct.forwards, direct.history,
                broken_at=direct.broken_at,
            )  # fmt: skip
        total = len(cases.x)
        factor = self.factor(cases.free)
        rows = np.arange(total)
        device_cases = cases.on_device()
        device_factor = Factor(*(backend.tensor(part, "float32") for part in factor))
        state = self._init(device_cases, device_factor)
        parts: list[tuple[np.ndarray, Solution]] = []
        step, limit, every = 0, self.attack.max_steps(), self.attack.look_every()
        while step < limit:
            for _ in range(min(every, limit - step)):
                state = self._step(device_cases, device_factor, state)
                step += 1
            if step >= limit:
                break
            done = backend.to_numpy(self._done(state))
            ended = (done | (backend.to_numpy(state.broken_at) > 0))[: len(rows)]
            if tick:
                tick(total - len(rows) + int(ended.sum()), step)
            if ended.all():
                break
            # Broken cases stay in the batch: its shape decides the last bits of their mates.
            live = np.flatnonzero(~done[: len(rows)])
            size = len(done)
            while size > 1 and len(live) <= size // 2:
                size //= 2
            if size < len(done):
                # Keep the finished rows out, and go on with a batch of half the size or less.
                over = np.flatnonzero(done[: len(rows)])
                parts.append((rows[over], self._collect(device_cases, device_factor, state, over)))
                pick = np.concatenate([live, np.repeat(live[:1], size - len(live))])
                device_cases = _take(device_cases, pick)
                device_factor = _take_factor(device_factor, pick)
                state = _take(state, pick)
                rows = rows[live]
        parts.append(
            (rows, self._collect(device_cases, device_factor, state, np.arange(len(rows))))
        )
        return _merge(parts)

    def _collect(self, cases: Cases, factor: Factor, run: _Watched, rows: np.ndarray) -> Solution:
        found, broken_at = backend.map_tensors(
            lambda part: backend.to_numpy(part)[rows], self._finish(cases, factor, run)
        )
        # The gradient that was not finite was paid for too.
        spent = found.gradients + (broken_at > 0) * self.problem.objective.cost
        return Solution(
            found.delta, found.success, spent.astype(np.int64), found.forwards.astype(np.int64),
            found.history, broken_at > 0, broken_at.astype(np.int64),
        )  # fmt: skip


def _where(condition: Any, these: Any, those: Any) -> Any:
    """Rows of one nested tuple of tensors where a condition, (B,) bool, holds, else of another."""
    from keras import ops

    if these is None:
        return None
    if isinstance(these, tuple):
        parts = [_where(condition, a, b) for a, b in zip(these, those, strict=True)]
        return type(these)(*parts) if hasattr(these, "_fields") else tuple(parts)
    rows = ops.reshape(condition, (-1,) + (1,) * (len(these.shape) - 1))
    return ops.where(rows, these, those)


def _take(tree: Any, rows: np.ndarray) -> Any:
    from keras import ops

    index = backend.tensor(rows, "int32")
    return backend.map_tensors(lambda leaf: ops.take(leaf, index, axis=0), tree)


def _take_factor(factor: Factor, rows: np.ndarray) -> Factor:
    """Rows of a factor: those that are shared stay shared."""
    from keras import ops

    index = backend.tensor(rows, "int32")

    def one(leaf: Any, axis: int) -> Any:
        return leaf if leaf.shape[axis] == 1 else ops.take(leaf, index, axis=axis)

    return Factor(
        one(factor.free, 0),
        one(factor.diagonal, 0),
        one(factor.forward, 1),
        one(factor.backward, 1),
    )


def _merge(parts: list[tuple[np.ndarray, Solution]]) -> Solution:
    """Parts of a chunk, each with its rows, in one."""
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    whole: dict[str, Any] = {}
    for one in fields(Solution):
        columns = [getattr(part, one.name) for _, part in parts]
        whole[one.name] = None if columns[0] is None else np.concatenate(columns)[order]
    return Solution(**whole)
