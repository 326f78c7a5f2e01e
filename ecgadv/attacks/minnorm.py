"""Minimum-norm attack in the metric's own geometry, about 100 gradients a case.

Decoupled direction and norm (Rony et al., CVPR 2019, arXiv 1811.09600) carried over from the
Euclidean norm to any quadratic form Q: in coordinates u = Q^{1/2}δ the metric is the Euclidean one,
a normalised gradient step is δ + α·Q⁻¹g/√(gᵀQ⁻¹g), and the sphere of radius ε is δᵀQδ = ε². One
tridiagonal solve an iteration is all it takes.

The boundary has several minima of different distance, and a single run stays in the first that it
meets. So a larger budget is spent on several short runs, each along another schedule, and the rest
of it on the way down from the best of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le

from ecgadv.attacks.base import Attack, Found, Problem
from ecgadv.errors import ConfigError
from ecgadv.options import Band, Spans
from ecgadv.threat.metrics import Factor
from ecgadv.threat.objectives import Cases

_TINY = 1e-30

_STARTS = (
    (1.0, 1.0, 1.0, 1.0),
    (2.0, 1.0, 1.0, 1.0),
    (2.0, 2.0, 0.2, 1.0),
    (2.0, 1.0, 1.0, 2.0),
    (1.4, 1.0, 0.2, 0.5),
    (4.0, 1.0, 1.0, 1.0),
    (1.0, 2.0, 0.2, 2.0),
    (1.4, 1.0, 1.0, 4.0),
)
"""What starts differ in: factors of first_step, of shrink early and late, of the first radius."""

_SHARE = 0.6
"""Share of the budget that several starts get together; the rest goes on from the best."""

_DESCENT = (0.6, 0.5, 0.6, 0.06)
"""On from the best: factors of first_step, last_step and of shrink at the beginning and the end."""

_ZERO, _BEST = 1, 2
"""What an iteration may begin with: δ = 0, or the best δ so far."""

_AUTO = 85
"""Rows of the plan of ``steps=auto``: the gradients of a case that never stands still."""

_STILL, _FALL, _HASTE = 6, 0.005, 5
"""``auto``: after so many iterations without such a fall of the best norm, an iteration takes so
many rows of the plan."""

_BEYOND = (1.02, 1.1, 1.3)
"""Scales tried where δ, found with coarser gradients, fails in float32."""


class MinNormState(NamedTuple):
    """State of :class:`MinNorm`; everything per case.

    Attributes:
        delta: (B, n) current iterate.
        radius: (B,) √(δᵀ(Q + ρI)δ) that the iterate is put on.
        best: (B, n) smallest successful iterate, else the latest attempt.
        best_norm: (B,) its norm, infinite before the first success.
        first: (B,) linearised distance to the boundary from δ = 0.
        iteration: (B,) steps done.
        row: (B,) rows of the plan done; ``iteration`` but for ``steps=auto``.
        level: (B,) norm that the best has to fall below for the case to be moving.
        still: (B,) iterations since it last did.
        gradients: (B,) gradient evaluations.
        forwards: (B,) forward evaluations.
    """

    delta: Any
    radius: Any
    best: Any
    best_norm: Any
    first: Any
    iteration: Any
    row: Any
    level: Any
    still: Any
    gradients: Any
    forwards: Any


class Schedule(NamedTuple):
    """Tables over the iterations, each (steps,).

    Attributes:
        begin: 0 goes on from the last iterate, 1 from δ = 0, 2 from the best so far.
        length: step length over the radius.
        shrink: share by which the radius changes.
        radius: where δ = 0 begins, the first radius over the linearised distance.
    """

    begin: np.ndarray
    length: np.ndarray
    shrink: np.ndarray
    radius: np.ndarray


def _part(
    steps: int, begin: int, first: float, last: float, early: float, late: float, radius: float
) -> Schedule:
    progress = np.arange(steps) / max(1, steps - 1)
    cosine = (0.5 * (1.0 + np.cos(math.pi * progress))).astype(np.float32)
    starts = np.zeros(steps, np.int32)
    starts[0] = begin
    return Schedule(
        starts,
        last + (first - last) * cosine,
        late + (early - late) * cosine,
        np.full(steps, radius, np.float32),
    )


@dataclass(frozen=True)
class MinNorm(Attack):
    """Options.

    Attributes:
        steps: gradient evaluations a case; 30, 100 and 300 are the documented settings. ``auto`` is
            85 for a case that keeps moving, and fewer for one that stands still: where the best
            norm has not fallen by 0.5 % over 6 iterations, the plan goes on five times as fast.
        first_step: step length over the radius in the first iteration.
        last_step: the same in the last one; a cosine lies between.
        shrink: share by which the radius falls after a success and grows after a failure.
        starts: runs from δ = 0 that share the budget; ``auto`` takes one below 200 steps, and one
            for every 100 steps from there on, 8 at most.
        search_steps: bisection steps along the final segment from 0 to δ, forwards only.
        perturb_padding: whether a short record's zero padding may be perturbed.
        band: lowest and highest frequency of δ in Hz, None for all; see :class:`Limits`.
        peak: largest |δ| in standard deviations of the record; None for any.
        mask: spans in seconds that may be perturbed; None for all samples.
    """

    name: ClassVar[str] = "minnorm"
    coarse_gradients: ClassVar[bool] = True
    quick: ClassVar[Mapping[str, Any]] = {"steps": 20}
    steps: Annotated[int, Ge(2)] | Literal["auto"] = 100
    first_step: Annotated[float, Gt(0), Le(2)] = 0.5
    last_step: Annotated[float, Gt(0), Le(2)] = 0.01
    shrink: Annotated[float, Gt(0), Le(0.5)] = 0.05
    starts: Annotated[int, Ge(1), Le(len(_STARTS))] | Literal["auto"] = "auto"
    search_steps: Annotated[int, Ge(0)] = 14
    perturb_padding: bool = False
    band: Band | None = None
    peak: Annotated[float, Gt(0)] | None = None
    mask: Spans | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps == "auto" and self.starts not in ("auto", 1):
            raise ConfigError(f"attack.starts={self.starts} attack.steps=auto: must be auto or 1")
        if self.starts != "auto" and self.starts > max(1, self.length // 10):
            raise ConfigError(
                f"attack.starts={self.starts}: each needs 10 of attack.steps={self.steps} at least"
            )

    @property
    def length(self) -> int:
        """Rows of the plan."""
        return _AUTO if self.steps == "auto" else self.steps

    @cached_property
    def schedule(self) -> Schedule:
        """What every iteration does."""
        if isinstance(self.starts, int):
            count = self.starts
        else:
            count = 1 if self.length < 200 else min(self.length // 100, len(_STARTS))
        run = self.length if count == 1 else int(_SHARE * self.length / count)
        parts = [
            _part(run, _ZERO, min(2.0, step * self.first_step), self.last_step, early, late, radius)
            for step, early, late, radius in _STARTS[:count]
        ]
        if count > 1:
            step, last, early, late = _DESCENT
            left = self.length - run * count
            step, last = step * self.first_step, last * self.last_step
            parts.append(_part(left, _BEST, step, last, early, late, 1.0))
        begin, length, shrink, scale = (np.concatenate(p) for p in zip(*parts, strict=True))
        return Schedule(begin, length, (shrink * self.shrink).astype(np.float32), scale)

    def max_steps(self) -> int:
        """Every case uses its whole budget, but for ``auto``."""
        return self.length

    def look_every(self) -> int:
        """Looks are for the progress bar only where no case ends early."""
        return max(1, self.length // (20 if self.steps == "auto" else 4))

    def init(self, problem: Problem, cases: Cases, factor: Factor) -> MinNormState:
        """Start at δ = 0."""
        from keras import ops

        zero = ops.zeros_like(cases.x)
        row = zero[:, 0]
        count = ops.cast(row, "int32")
        far = row + float("inf")
        return MinNormState(zero, row, zero, far, row, count, count, far, count, count, count)

    def step(
        self, problem: Problem, cases: Cases, factor: Factor, state: MinNormState
    ) -> MinNormState:
        """Move along the natural gradient of the margin, then onto the new radius."""
        from keras import ops

        metric = problem.metric

        def norm(delta: Any) -> Any:
            square = metric.value(delta) + metric.ridge * ops.sum(ops.square(delta), axis=-1)
            return ops.sqrt(ops.maximum(square, _TINY))

        def ascend(delta: Any, iteration: Any) -> tuple[Any, Any]:
            excess = problem.objective(delta, cases, iteration).excess
            return excess, excess

        (excess, _), gradient = problem.value_and_grad(ascend)(state.delta, state.iteration)
        live = state.row < self.length
        limits, free = problem.limits, cases.free
        gradient = limits.steer(gradient, free)
        natural = limits.steer(metric.solve(factor, gradient), free)
        square = ops.sum(gradient * natural, axis=-1)
        # Where the gradient vanishes the record itself is a direction that std(·) does not see.
        dead = ops.logical_not(square > _TINY)
        natural = ops.where(dead[:, None], limits.steer(cases.x * free, free), natural)
        slope = ops.where(dead, norm(natural), ops.sqrt(ops.maximum(square, _TINY)))
        direction = natural / slope[:, None]

        success = excess >= 0
        size = norm(state.delta)
        better = ops.logical_and(ops.logical_and(success, live), size < state.best_norm)
        keep = ops.logical_or(better, ops.logical_and(live, ops.isinf(state.best_norm)))
        best = ops.where(keep[:, None], state.delta, state.best)
        best_norm = ops.where(better, size, state.best_norm)

        # A case that has used its budget may still be in the batch: the last row of the tables.
        plan, last = self.schedule, self.length - 1
        now = ops.minimum(state.row, last)
        shrink, length, begins, scale = (
            ops.take(table, now) for table in (plan.shrink, plan.length, plan.begin, plan.radius)
        )
        moved = state.radius * ops.where(success, 1.0 - shrink, 1.0 + shrink)
        # First radius: the linearised distance to the boundary, at most half the record's size.
        linear = ops.minimum(ops.maximum(-excess, 0.0) / slope, 0.5 * norm(cases.x * cases.free))
        first = ops.where(now < 1, linear, state.first)
        radius = ops.where(begins == _ZERO, scale * first, moved)
        delta = state.delta + (length * radius)[:, None] * direction
        delta = limits.into(delta * (radius / norm(delta))[:, None], free)

        ahead, level, still = self._onward(state, best_norm)
        following = ops.take(plan.begin, ops.minimum(ahead, last))
        from_best = ops.logical_and(following == _BEST, ops.isfinite(best_norm))
        delta = ops.where((following == _ZERO)[:, None], ops.zeros_like(delta), delta)
        delta = ops.where(from_best[:, None], best, delta)
        radius = ops.where(from_best, best_norm, radius)
        return MinNormState(
            delta=delta,
            radius=radius,
            best=best,
            best_norm=best_norm,
            first=first,
            iteration=state.iteration + ops.cast(live, "int32"),
            row=ahead,
            level=level,
            still=still,
            gradients=state.gradients + problem.objective.cost * ops.cast(live, "int32"),
            forwards=state.forwards,
        )

    def _onward(self, state: MinNormState, best_norm: Any) -> tuple[Any, Any, Any]:
        """Rows done, level and still after an iteration, (B,) each."""
        from keras import ops

        fell = ops.logical_or(best_norm < state.level, ops.isinf(best_norm))
        level = ops.where(fell, (1.0 - _FALL) * best_norm, state.level)
        still = ops.where(fell, ops.zeros_like(state.still), state.still + 1)
        if self.steps != "auto":
            return state.row + 1, level, still
        hurry = ops.cast(still >= _STILL, "int32")
        return state.row + 1 + (_HASTE - 1) * hurry, level, still

    def finish(
        self, problem: Problem, cases: Cases, factor: Factor, state: MinNormState
    ) -> MinNormState:
        """Bisect along the segment from 0 to the best δ, in float32.

        Where the gradients came from a coarser arithmetic, the best δ may fall short of the
        boundary in float32; the search then starts a little beyond it.
        """
        from keras import ops

        def reaches(scale: Any) -> Any:
            delta = problem.limits.into(state.best * scale[:, None], cases.free)
            return problem.judge(delta, cases, state.iteration).excess >= 0

        works = ops.ones_like(state.radius)
        forwards = self.search_steps
        if problem.judge is not problem.objective:
            inside = reaches(works)
            for further in _BEYOND:
                works = ops.where(inside, works, ops.full_like(works, further))
                inside = reaches(works)
            forwards += 1 + len(_BEYOND)

        def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
            fails, works = ends
            middle = 0.5 * (fails + works)
            inside = reaches(middle)
            return ops.where(inside, fails, middle), ops.where(inside, middle, works)

        # A loop of the backend: unrolled, it costs seconds of tracing the network again and again.
        _, works = ops.fori_loop(0, self.search_steps, halve, (ops.zeros_like(works), works))
        scale = ops.where(ops.isinf(state.best_norm), ops.ones_like(works), works)
        return state._replace(
            best=problem.limits.into(state.best * scale[:, None], cases.free),
            forwards=state.forwards + forwards * problem.objective.cost,
        )

    def found(self, state: MinNormState) -> Found:
        """Done after the last step."""
        from keras import ops

        return Found(
            delta=state.best,
            success=ops.logical_not(ops.isinf(state.best_norm)),
            done=state.row >= self.length,
            gradients=state.gradients,
            forwards=state.forwards,
        )
