"""Carlini and Wagner's attack as ECGadv uses it, batched, every case with its own constant.

Carlini N, Wagner D. Towards Evaluating the Robustness of Neural Networks. IEEE S&P 2017; paper,
section "Attack strategy": minimise d(δ) + c·max(0, max_{i≠t} Z_i − Z_t + κ) by Adam, with a search
on c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

from annotated_types import Ge, Gt, Lt

from ecgadv.attacks.base import Attack, Found, Problem
from ecgadv.options import Band, Spans
from ecgadv.threat.metrics import Factor
from ecgadv.threat.objectives import Cases

_UNBOUNDED = 1e10


class CWState(NamedTuple):
    """State of :class:`CarliniWagner`; everything per case.

    Attributes:
        delta: (B, n) current iterate.
        first: (B, n) Adam's first moment.
        second: (B, n) Adam's second moment.
        iteration: (B,) iterations of the current search step.
        search: (B,) search steps finished.
        constant: (B,) c.
        lower: (B,) largest c that failed.
        upper: (B,) smallest c that succeeded.
        previous: (B,) loss at the last check of progress.
        hit: (B,) whether the current search step has succeeded.
        best: (B, n) smallest successful iterate, else the latest attempt.
        best_distance: (B,) its distance, infinite before the first success.
        gradients: (B,) gradient evaluations.
    """

    delta: Any
    first: Any
    second: Any
    iteration: Any
    search: Any
    constant: Any
    lower: Any
    upper: Any
    previous: Any
    hit: Any
    best: Any
    best_distance: Any
    gradients: Any


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Options as in the paper and its released code.

    Attributes:
        steps: largest number of iterations of one search step.
        search_steps: constants tried.
        learning_rate: of Adam.
        initial_constant: first c; times 10 until the first success, then bisection.
        check_every: iterations between two checks of progress.
        tolerance: a search step ends where the loss has not fallen by this share.
        kappa: confidence κ.
        perturb_padding: whether a short record's zero padding may be perturbed.
        band: lowest and highest frequency of δ in Hz, None for all; see :class:`Limits`.
        peak: largest |δ| in standard deviations of the record; None for any.
        mask: spans in seconds that may be perturbed; None for all samples.
    """

    name: ClassVar[str] = "cw"
    ridged: ClassVar[bool] = False
    baseline: ClassVar[bool] = True
    # Larger steps reach the boundary sooner and turn rounding into per cents by walking along it.
    quick: ClassVar[Mapping[str, Any]] = {
        "steps": 40, "search_steps": 2, "initial_constant": 10.0, "learning_rate": 5e-3,
    }  # fmt: skip
    steps: Annotated[int, Ge(1)] = 1000
    search_steps: Annotated[int, Ge(1)] = 5
    learning_rate: Annotated[float, Gt(0)] = 5e-3
    initial_constant: Annotated[float, Gt(0)] = 1e-2
    check_every: Annotated[int, Ge(1)] = 100
    tolerance: Annotated[float, Ge(0), Lt(1)] = 1e-4
    kappa: Annotated[float, Ge(0)] = 0.0
    perturb_padding: bool = False
    band: Band | None = None
    peak: Annotated[float, Gt(0)] | None = None
    mask: Spans | None = None

    def max_steps(self) -> int:
        """All search steps at full length."""
        return self.steps * self.search_steps

    def look_every(self) -> int:
        """Progress is judged as often as the paper judges it."""
        return min(self.check_every, self.steps)

    def init(self, problem: Problem, cases: Cases, factor: Factor) -> CWState:
        """Every search step starts from δ = 0."""
        from keras import ops

        zero = ops.zeros_like(cases.x)
        row = zero[:, 0]
        count = ops.cast(row, "int32")
        return CWState(
            delta=zero,
            first=zero,
            second=zero,
            iteration=count,
            search=count,
            constant=row + self.initial_constant,
            lower=row,
            upper=row + _UNBOUNDED,
            previous=row + 1e6,
            hit=ops.zeros_like(row, dtype="bool"),
            best=zero,
            best_distance=row + float("inf"),
            gradients=count,
        )

    def step(self, problem: Problem, cases: Cases, factor: Factor, state: CWState) -> CWState:
        """One Adam iteration; a case at the end of its search step starts the next one."""
        from keras import ops

        metric = problem.metric

        def loss(delta: Any, constant: Any, iteration: Any) -> tuple[Any, Any]:
            masked = delta * cases.free
            outcome = problem.objective(masked, cases, iteration)
            # `excess` is the margin less the safety that success asks for; ReLU is the hinge.
            hinge = ops.relu(self.kappa - outcome.excess)
            distance = metric.value(masked)
            return distance + constant * hinge, (distance, outcome.excess)

        (value, (distance, excess)), gradient = problem.value_and_grad(loss)(
            state.delta, state.constant, state.gradients
        )
        active = state.search < self.search_steps
        success = ops.logical_and(active, excess >= 0)
        better = ops.logical_and(success, distance < state.best_distance)
        never = ops.isinf(state.best_distance)
        keep = ops.logical_or(better, ops.logical_and(active, never))
        best = ops.where(keep[:, None], state.delta * cases.free, state.best)
        best_distance = ops.where(better, distance, state.best_distance)
        hit = ops.logical_or(state.hit, success)

        iteration = state.iteration + 1
        time = ops.cast(iteration, "float32")[:, None]
        gradient = problem.limits.steer(gradient * cases.free, cases.free)
        first = 0.9 * state.first + 0.1 * gradient
        second = 0.999 * state.second + 0.001 * ops.square(gradient)
        unbiased = ops.sqrt(second / (1.0 - ops.power(0.999, time))) + 1e-8
        delta = state.delta - self.learning_rate * first / (1.0 - ops.power(0.9, time)) / unbiased
        delta = problem.limits.into(delta, cases.free)

        # The released code looks at the loss in iterations 0, 100, 200, …, stops where it stalls.
        looked = ops.equal(ops.mod(state.iteration, self.check_every), 0)
        stalled = ops.logical_and(looked, value > state.previous * (1.0 - self.tolerance))
        previous = ops.where(looked, value, state.previous)
        ended = ops.logical_or(stalled, iteration >= self.steps)
        ended = ops.logical_and(ended, active)

        upper = ops.where(hit, ops.minimum(state.upper, state.constant), state.upper)
        lower = ops.where(hit, state.lower, ops.maximum(state.lower, state.constant))
        middle = ops.where(upper < _UNBOUNDED, 0.5 * (lower + upper), state.constant * 10.0)
        wipe = ops.cast(ops.logical_not(ended), "float32")
        going = ops.cast(active, "int32")
        keep_count = ops.cast(ops.logical_not(ended), "int32")
        return CWState(
            delta=ops.where(active[:, None], delta * wipe[:, None], state.delta),
            first=first * wipe[:, None],
            second=second * wipe[:, None],
            iteration=ops.where(active, iteration * keep_count, state.iteration),
            search=state.search + ops.cast(ended, "int32"),
            constant=ops.where(ended, middle, state.constant),
            lower=ops.where(ended, lower, state.lower),
            upper=ops.where(ended, upper, state.upper),
            previous=ops.where(ended, ops.full_like(value, 1e6), previous),
            hit=ops.logical_and(hit, ops.logical_not(ended)),
            best=best,
            best_distance=best_distance,
            gradients=state.gradients + going * problem.objective.cost,
        )

    def found(self, state: CWState) -> Found:
        """Done where all constants were tried."""
        from keras import ops

        return Found(
            delta=state.best,
            success=ops.logical_not(ops.isinf(state.best_distance)),
            done=state.search >= self.search_steps,
            gradients=state.gradients,
            forwards=ops.zeros_like(state.gradients),
        )
