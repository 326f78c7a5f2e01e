"""Runs an attack over a chunk of cases: compile once, step, drop what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.attacks.base import Attack, DirectAttack, Found, Problem
from ecgadv.errors import ConfigError
from ecgadv.threat.metrics import Factor
from ecgadv.threat.objectives import Cases
from ecgadv.victims.loading import Victim

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


WORTH_MEASURING = 20_000
"""Gradients in all from which ``auto`` times both precisions; below, compiling costs more."""

FASTER = 0.8
"""Share of float32's time that bfloat16 must not exceed to be chosen."""


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
        victim.with_precision("bfloat16")
        return "bfloat16", "as asked"
    if wanted == "float32" or not coarse or victim.model is None:
        return "float32", "as asked" if wanted == "float32" else "the only one here"
    assert isinstance(attack, Attack)
    weight = max(1, victim.model.count_params() // 1_000_000)
    if total * attack.max_steps() * weight < WORTH_MEASURING:
        return "float32", "too little work to measure"
    times = {p: _gradient_seconds(victim.with_precision(p), size) for p in ("float32", "bfloat16")}
    best = "bfloat16" if times["bfloat16"] <= FASTER * times["float32"] else "float32"
    each = ", ".join(f"{p} {1e3 * t / size:.2f} ms" for p, t in times.items())
    return best, f"{each} a gradient"


def _gradient_seconds(victim: Victim, size: int) -> float:
    """Median time of one compiled gradient of a chunk, three tries."""

    def energy(x: Any) -> tuple[Any, Any]:
        logits = victim.forward(x)
        return logits[:, 0], logits

    gradient = backend.compile(backend.value_and_grad(energy))
    x = backend.tensor(np.random.default_rng(0).standard_normal((size, victim.width)), "float32")
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        backend.to_numpy(gradient(x)[1])
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


@dataclass(frozen=True)
class Solution:
    """What a solver believes it found; nothing here is verified.

    Attributes:
        delta: (B, n) float32.
        success: (B,) bool.
        gradients: (B,) int.
        forwards: (B,) int.
        history: (B, steps) loss of every iteration, None where the attack does not keep it.
    """

    delta: np.ndarray
    success: np.ndarray
    gradients: np.ndarray
    forwards: np.ndarray
    history: np.ndarray | None = None


class Engine:
    """A compiled attack, reused for every chunk of the same shape.

    Args:
        attack: the solver.
        problem: objective, metric and seed.
    """

    def __init__(self, attack: Attack | DirectAttack, problem: Problem) -> None:
        self.problem = problem
        self._direct = attack.solver(problem) if isinstance(attack, DirectAttack) else None
        if isinstance(attack, DirectAttack):
            return
        self.attack = attack
        self._init = backend.compile(self._init_pure)
        self._step = backend.compile(self._step_pure)
        self._finish = backend.compile(self._finish_pure)
        self._done = backend.compile(lambda state: attack.found(state).done)

    def _init_pure(self, cases: Cases, factor: Factor) -> Any:
        return self.attack.init(self.problem, cases, factor)

    def _step_pure(self, cases: Cases, factor: Factor, state: Any) -> Any:
        return self.attack.step(self.problem, cases, factor, state)

    def _finish_pure(self, cases: Cases, factor: Factor, state: Any) -> Found:
        return self.attack.found(self.attack.finish(self.problem, cases, factor, state))

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
            A row per case, in order.
        """
        if self._direct is not None:
            direct = self._direct(cases)
            return Solution(direct.delta, direct.success, direct.gradients, direct.forwards)
        total = len(cases.x)
        factor = self.factor(cases.free)
        rows = np.arange(total)
        device_cases = _to_device(cases)
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
            if tick:
                tick(total - len(rows) + int(done[: len(rows)].sum()), step)
            live = np.flatnonzero(~done[: len(rows)])
            if not len(live):
                break
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
        return _merge(total, cases.x.shape[1], parts)

    def _collect(self, cases: Cases, factor: Factor, state: Any, rows: np.ndarray) -> Solution:
        found = self._finish(cases, factor, state)
        kept = [found.delta, found.success, found.gradients, found.forwards]
        kept += [] if found.history is None else [found.history]
        return Solution(*(backend.to_numpy(part)[rows] for part in kept))


def _to_device(cases: Cases) -> Cases:
    kinds = Cases("float32", "float32", "float32", "int32", "int32", "int32", "int32")
    return Cases(*(backend.tensor(a, k) for a, k in zip(cases, kinds, strict=True)))


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


def _merge(total: int, n: int, parts: list[tuple[np.ndarray, Solution]]) -> Solution:
    first = parts[0][1].history
    out = Solution(
        np.zeros((total, n), np.float32),
        np.zeros(total, bool),
        np.zeros(total, np.int64),
        np.zeros(total, np.int64),
        None if first is None else np.zeros((total, first.shape[1]), np.float32),
    )
    for rows, part in parts:
        out.delta[rows], out.success[rows] = part.delta, part.success
        out.gradients[rows], out.forwards[rows] = part.gradients, part.forwards
        if out.history is not None:
            out.history[rows] = part.history
    return out
