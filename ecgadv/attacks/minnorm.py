"""Minimum-norm attack in the metric's own geometry, about 100 gradients a case.

Decoupled direction and norm (Rony et al., CVPR 2019, arXiv 1811.09600) carried over from the
Euclidean norm to any quadratic form Q: in coordinates u = Q^{1/2}δ the metric is the Euclidean one,
a normalised gradient step is δ + α·Q⁻¹g/√(gᵀQ⁻¹g), and the sphere of radius ε is δᵀQδ = ε². One
tridiagonal solve an iteration is all it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ecgadv import backend
from ecgadv.attacks.base import Attack, Found, Problem
from ecgadv.errors import ConfigError
from ecgadv.threat.limits import Spans
from ecgadv.threat.metrics import Factor
from ecgadv.threat.objectives import Cases

_TINY = 1e-30

_BEYOND = (1.02, 1.1, 1.3)
"""Scales tried where δ, found with coarser gradients, fails in float32."""


class MinNormState(NamedTuple):
    """State of :class:`MinNorm`; everything per case.

    Attributes:
        delta: (B, n) current iterate.
        radius: (B,) √(δᵀ(Q + ρI)δ) that the iterate is put on.
        best: (B, n) smallest successful iterate, else the latest attempt.
        best_norm: (B,) its norm, infinite before the first success.
        iteration: (B,) steps done.
        gradients: (B,) gradient evaluations.
        forwards: (B,) forward evaluations.
    """

    delta: Any
    radius: Any
    best: Any
    best_norm: Any
    iteration: Any
    gradients: Any
    forwards: Any


@dataclass(frozen=True)
class MinNorm(Attack):
    """Options.

    Attributes:
        steps: gradient evaluations a case; 30, 100 and 300 are the documented settings.
        first_step: step length over the radius in the first iteration.
        last_step: the same in the last one; a cosine lies between.
        shrink: share by which the radius falls after a success and grows after a failure.
        search_steps: bisection steps along the final segment from 0 to δ, forwards only.
        perturb_padding: whether a short record's zero padding may be perturbed.
        band: lowest and highest frequency of δ in Hz, None for all; see :class:`Limits`.
        peak: largest |δ| in standard deviations of the record; None for any.
        mask: spans in seconds that may be perturbed; None for all samples.
    """

    name: ClassVar[str] = "minnorm"
    coarse_gradients: ClassVar[bool] = True
    steps: int = 100
    first_step: float = 1.0
    last_step: float = 0.01
    shrink: float = 0.05
    search_steps: int = 14
    perturb_padding: bool = False
    band: Sequence[float] | None = None
    peak: float | None = None
    mask: Spans | None = None

    def __post_init__(self) -> None:
        _ = self.limits
        if self.steps < 2:
            raise ConfigError(f"attack.steps={self.steps}: must be at least 2")
        if self.search_steps < 0:
            raise ConfigError(f"attack.search_steps={self.search_steps}: must not be negative")
        for name, largest in (("first_step", 2.0), ("last_step", 2.0), ("shrink", 0.5)):
            if not 0 < getattr(self, name) <= largest:
                raise ConfigError(
                    f"attack.{name}={getattr(self, name)}: must be above 0 and at most {largest:g}"
                )

    def max_steps(self) -> int:
        """Every case uses its whole budget."""
        return self.steps

    def look_every(self) -> int:
        """Looks are for the progress bar only: no case ends early."""
        return max(1, self.steps // 4)

    def init(self, problem: Problem, cases: Cases, factor: Factor) -> MinNormState:
        """Start at δ = 0."""
        from keras import ops

        zero = ops.zeros_like(cases.x)
        row = zero[:, 0]
        count = ops.cast(row, "int32")
        return MinNormState(zero, row, zero, row + float("inf"), count, count, count)

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

        (excess, _), gradient = backend.value_and_grad(ascend)(state.delta, state.iteration)
        limits, free = self.limits, cases.free
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
        better = ops.logical_and(success, size < state.best_norm)
        keep = ops.logical_or(better, ops.isinf(state.best_norm))
        best = ops.where(keep[:, None], state.delta, state.best)
        best_norm = ops.where(better, size, state.best_norm)

        moved = state.radius * ops.where(success, 1.0 - self.shrink, 1.0 + self.shrink)
        # First radius: the linearised distance to the boundary, at most half the record's size.
        linear = ops.minimum(ops.maximum(-excess, 0.0) / slope, 0.5 * norm(cases.x * cases.free))
        radius = ops.where(state.iteration < 1, linear, moved)

        progress = ops.cast(state.iteration, "float32") / max(1, self.steps - 1)
        cosine = 0.5 * (1.0 + ops.cos(math.pi * progress))
        length = (self.last_step + (self.first_step - self.last_step) * cosine) * radius
        delta = state.delta + length[:, None] * direction
        delta = limits.into(delta * (radius / norm(delta))[:, None], free)
        return MinNormState(
            delta=delta,
            radius=radius,
            best=best,
            best_norm=best_norm,
            iteration=state.iteration + 1,
            gradients=state.gradients + problem.objective.cost,
            forwards=state.forwards,
        )

    def finish(
        self, problem: Problem, cases: Cases, factor: Factor, state: MinNormState
    ) -> MinNormState:
        """Bisect along the segment from 0 to the best δ, in float32.

        Where the gradients came from a coarser arithmetic, the best δ may fall short of the
        boundary in float32; the search then starts a little beyond it.
        """
        from keras import ops

        def reaches(scale: Any) -> Any:
            delta = self.limits.into(state.best * scale[:, None], cases.free)
            return problem.judge(delta, cases, state.iteration).excess >= 0

        works = ops.ones_like(state.radius)
        forwards = self.search_steps
        if problem.judge is not problem.objective:
            inside = reaches(works)
            for further in _BEYOND:
                works = ops.where(inside, works, ops.full_like(works, further))
                inside = reaches(works)
            forwards += 1 + len(_BEYOND)
        fails = ops.zeros_like(works)
        for _ in range(self.search_steps):
            middle = 0.5 * (fails + works)
            inside = reaches(middle)
            works = ops.where(inside, middle, works)
            fails = ops.where(inside, fails, middle)
        scale = ops.where(ops.isinf(state.best_norm), ops.ones_like(works), works)
        return state._replace(
            best=self.limits.into(state.best * scale[:, None], cases.free),
            forwards=state.forwards + forwards * problem.objective.cost,
        )

    def found(self, state: MinNormState) -> Found:
        """Done after the last step."""
        from keras import ops

        return Found(
            delta=state.best,
            success=ops.logical_not(ops.isinf(state.best_norm)),
            done=state.iteration >= self.steps,
            gradients=state.gradients,
            forwards=state.forwards,
        )
