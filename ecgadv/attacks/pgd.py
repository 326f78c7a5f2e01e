"""Projected gradient ascent on the margin, within a budget of any of the three metrics.

Madry A et al. Towards deep learning models resistant to adversarial attacks. ICLR 2018; here in the
geometry of the metric: for d(δ) = δᵀQδ the step of unit size that raises the margin most is
Q⁻¹g/√(gᵀQ⁻¹g), and the nearest point of the ball d(δ) <= budget, nearest in that same geometry, is
δ·min(1, √(budget/d(δ))).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from annotated_types import Ge, Gt

from ecgadv import backend
from ecgadv.attacks.base import Attack, Found, Problem
from ecgadv.options import Band, Spans
from ecgadv.threat.metrics import Factor, Quadratic
from ecgadv.threat.objectives import Cases

_TINY = 1e-30

_INSIDE = 1.0 - 1e-4
"""Share of the radius that is used, so that rounding in float32 never leaves the ball."""


class PGDState(NamedTuple):
    """State of :class:`PGD`; everything per case.

    Attributes:
        delta: (B, n) current iterate, within the ball.
        best: (B, n) iterate with the largest excess so far.
        best_excess: (B,) its excess, see :class:`ecgadv.threat.goals.Outcome`.
        iteration: (B,) steps done.
        gradients: (B,) gradient evaluations.
        forwards: (B,) forward evaluations without a gradient.
    """

    delta: Any
    best: Any
    best_excess: Any
    iteration: Any
    gradients: Any
    forwards: Any


@dataclass(frozen=True)
class PGD(Attack):
    """Options.

    A success is a margin reached within the ball; of all iterates the one with the largest margin
    is kept, whether it suffices or not. ``diff`` has a ridge, which shapes the steps only: the ball
    is that of the pure metric.

    Attributes:
        budget: largest d(δ), in the units of the metric.
        steps: gradient evaluations a case.
        step_size: length of a step over the ball's radius √budget; None means 2.5/steps.
        random_start: start at a random point of the ball instead of δ = 0. All cases draw the same
            noise from the run's seed, so that no result depends on batch mates; another seed gives
            another start.
        perturb_padding: whether a short record's zero padding may be perturbed.
        band: lowest and highest frequency of δ in Hz, None for all; see :class:`Limits`.
        peak: largest |δ| in standard deviations of the record; None for any.
        mask: spans in seconds that may be perturbed; None for all samples.

    Raises:
        ConfigError: an option is out of range.
    """

    name: ClassVar[str] = "pgd"
    minimises: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, Any]] = {"steps": 10, "budget": 4.0}
    budget: Annotated[float, Gt(0)] = 1.0
    steps: Annotated[int, Ge(1)] = 40
    step_size: Annotated[float, Gt(0)] | None = None
    random_start: bool = False
    perturb_padding: bool = False
    band: Band | None = None
    peak: Annotated[float, Gt(0)] | None = None
    mask: Spans | None = None

    def max_steps(self) -> int:
        """Every case uses all its steps: a larger margin is a better answer."""
        return self.steps

    def look_every(self) -> int:
        """Looks are for the progress bar only."""
        return max(1, self.steps // 4)

    def _into_ball(self, metric: Quadratic, delta: Any) -> Any:
        """Project onto d(δ) <= budget by scaling, (B, n) -> (B, n)."""
        from keras import ops

        size = ops.sqrt(ops.maximum(metric.value(delta), _TINY))
        share = _INSIDE * self.budget**0.5 / size
        return delta * ops.minimum(share, 1.0)[:, None]

    def init(self, problem: Problem, cases: Cases, factor: Factor) -> PGDState:
        """Start at δ = 0, or at random in the ball."""
        import numpy as np
        from keras import ops

        zero = ops.zeros_like(cases.x)
        row = zero[:, 0]
        count = ops.cast(row, "int32")
        delta = zero
        if self.random_start:
            rng = np.random.default_rng([problem.seed, 0x9D])
            noise = rng.standard_normal((1, cases.x.shape[-1])).astype(np.float32)
            share = np.float32(rng.uniform())
            # White in the metric's coordinates: every direction there is equally likely.
            delta = problem.metric.unwhiten(factor, zero + backend.tensor(noise)) * cases.free
            size = ops.sqrt(ops.maximum(problem.metric.value(delta), _TINY))
            delta = delta * (share * _INSIDE * self.budget**0.5 / size)[:, None]
            delta = self._into_ball(problem.metric, problem.limits.into(delta, cases.free))
        return PGDState(delta, zero, row - float("inf"), count, count, count)

    def step(self, problem: Problem, cases: Cases, factor: Factor, state: PGDState) -> PGDState:
        """One natural-gradient step, then back into the ball."""
        from keras import ops

        def ascend(delta: Any, iteration: Any) -> tuple[Any, Any]:
            excess = problem.objective(delta, cases, iteration).excess
            return excess, excess

        (excess, _), gradient = problem.value_and_grad(ascend)(state.delta, state.iteration)
        limits, free = problem.limits, cases.free
        gradient = limits.steer(gradient, free)
        natural = limits.steer(problem.metric.solve(factor, gradient), free)
        square = ops.sum(gradient * natural, axis=-1)
        # No step where the gradient vanishes.
        alive = ops.cast(square > _TINY, "float32")
        length = (2.5 / self.steps if self.step_size is None else self.step_size) * self.budget**0.5
        scale = alive * length / ops.sqrt(ops.maximum(square, _TINY))
        moved = limits.into(state.delta + scale[:, None] * natural, free)
        moved = self._into_ball(problem.metric, moved)
        state = self._keep(state, excess)
        return state._replace(
            delta=ops.where(alive[:, None] > 0, moved, state.delta),
            iteration=state.iteration + 1,
            gradients=state.gradients + problem.objective.cost,
        )

    @staticmethod
    def _keep(state: PGDState, excess: Any) -> PGDState:
        """Remember the current iterate where its margin is the largest so far."""
        from keras import ops

        better = excess > state.best_excess
        return state._replace(
            best=ops.where(better[:, None], state.delta, state.best),
            best_excess=ops.where(better, excess, state.best_excess),
        )

    def finish(self, problem: Problem, cases: Cases, factor: Factor, state: PGDState) -> PGDState:
        """Judge the last iterate too, by one forward pass."""
        excess = problem.objective(state.delta, cases, state.iteration).excess
        state = self._keep(state, excess)
        return state._replace(forwards=state.forwards + problem.objective.cost)

    def found(self, state: PGDState) -> Found:
        """Done after the last step."""
        return Found(
            delta=state.best,
            success=state.best_excess >= 0,
            done=state.iteration >= self.steps,
            gradients=state.gradients,
            forwards=state.forwards,
        )
