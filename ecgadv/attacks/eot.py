"""Expectation over transformation for signals injected at an unknown onset (paper, "Type II").

Athalye A, Engstrom L, Ilyas A, Kwok K. Synthesizing Robust Adversarial Examples. ICML 2018; here
the transformations are shifts. Two schedules minimise E_τ[cross-entropy] + d(p)/c:

- ``budget`` holds the mean power Σp²/w at or below a stated value by projection; the limit begins
  higher and falls to that value, since a loud signal finds its way to the target where a quiet one
  stays beside it;
- ``paper`` has no projection: c is adapted until the mean power lands in a band.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Gt

from ecgadv.attacks.base import Attack, Found, Problem
from ecgadv.errors import ConfigError
from ecgadv.options import Band, Spans
from ecgadv.threat.metrics import Factor
from ecgadv.threat.objectives import Cases

FALLING = 0.7
"""Share of the iterations of ``budget`` over which the limit falls."""

PAPER_SHIFTS_HZ = 6
"""Shifts a second of the paper's schedule: at 300 Hz (9000 − w)/50, 180 for the whole record."""


def paper_shifts(window: int, n: int, fs: float) -> int:
    """Views an iteration of the paper's schedule."""
    stride = max(1, round(fs / PAPER_SHIFTS_HZ))
    return max(1, (n if window == n else n - window) // stride)


class EOTState(NamedTuple):
    """State of :class:`EOT`; everything per case.

    Attributes:
        p: (B, n) current iterate.
        first: (B, n) momentum; Adam's first moment in ``paper``.
        second: (B, n) Adam's second moment.
        iteration: (B,) iterations of the current search step.
        search: (B,) search steps finished.
        constant: (B,) c.
        lower: (B,) largest c whose power was too low.
        upper: (B,) smallest c whose power was too high.
        best: (B, n) best iterate within the power limits, else the latest one scaled into them.
        best_loss: (B,) its cross-entropy, infinite before the first one that hits on average.
        gradients: (B,) gradient evaluations.
        history: (B, steps) cross-entropy of every iteration of the latest search step.
    """

    p: Any
    first: Any
    second: Any
    iteration: Any
    search: Any
    constant: Any
    lower: Any
    upper: Any
    best: Any
    best_loss: Any
    gradients: Any
    history: Any


@dataclass(frozen=True)
class EOT(Attack):
    """Options of the attack; needs injected signals.

    Attributes:
        schedule: ``budget`` or ``paper``.
        steps: iterations of ``budget``.
        paper_steps: iterations of ``paper`` for each constant.
        step_size: ``budget``: first step as a share of the present limit's radius √(power·w), along
            the momentum of unit gradients, falling to zero along a cosine; ``paper``: Adam's
            learning rate in standard deviations of the ECG. None is 0.3 and 1.
        power: largest mean power Σp²/w of ``budget``, in variances of the ECG.
        start_power: limit of the first iteration in multiples of ``power``, falling to 1
            geometrically over the first :data:`FALLING` of the iterations.
        lowest_power: least mean power that ``paper`` accepts.
        highest_power: largest mean power that it accepts.
        constant: c in d(p)/c. ``budget`` leaves this term out under the metric ``l2``, whose
            part the projection does.
        search_steps: constants that ``paper`` tries.
        band: lowest and highest frequency in Hz that the injector can make, None for all; see
            :class:`ecgadv.threat.limits.Limits`.
        peak: largest |p| that it can make, in standard deviations of the ECG; None for any.
        mask: spans in seconds of p, counted from its onset, that may differ from 0; None for all.
        train_records: records of the source class that a universal perturbation is made from.
    """

    name: ClassVar[str] = "eot"
    minimises: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, Any]] = {"steps": 10}
    schedule: Literal["budget", "paper"] = "budget"
    steps: Annotated[int, Ge(1)] = 300
    paper_steps: Annotated[int, Ge(1)] = 500
    step_size: Annotated[float, Gt(0)] | None = None
    power: Annotated[float, Gt(0)] = 1.0
    start_power: Annotated[float, Ge(1)] = 10.0
    lowest_power: Annotated[float, Ge(0)] = 0.5
    highest_power: Annotated[float, Gt(0)] = 1.5
    constant: Annotated[float, Gt(0)] = 5e4
    search_steps: Annotated[int, Ge(1)] = 5
    band: Band | None = None
    peak: Annotated[float, Gt(0)] | None = None
    mask: Spans | None = None
    train_records: Annotated[int, Ge(1)] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lowest_power < self.highest_power:
            raise ConfigError(
                f"attack.lowest_power={self.lowest_power}: must be at least 0 and below "
                f"attack.highest_power={self.highest_power}"
            )
        needed = math.sqrt(self.lowest_power)
        if self.schedule == "paper" and self.peak is not None and self.peak < needed:
            raise ConfigError(
                f"attack.peak={self.peak:g} attack.lowest_power={self.lowest_power:g}: such a mean "
                f"power needs amplitudes of {needed:.3g} at least"
            )

    @property
    def _rate(self) -> float:
        if self.step_size is not None:
            return self.step_size
        return 0.3 if self.schedule == "budget" else 1.0

    @property
    def _length(self) -> int:
        """Iterations of a search step."""
        return self.steps if self.schedule == "budget" else self.paper_steps

    @property
    def _searches(self) -> int:
        return 1 if self.schedule == "budget" else self.search_steps

    def max_steps(self) -> int:
        """All search steps."""
        return self._length * self._searches

    def look_every(self) -> int:
        """Ten looks a search step show how far it is."""
        return max(1, self._length // 10)

    def init(self, problem: Problem, cases: Cases, factor: Factor) -> EOTState:
        """Starts from silence."""
        from keras import ops

        if not problem.objective.channel.injected:
            raise ConfigError("attack=eot: makes injected signals, it needs threat_model=type2")
        zero = ops.zeros_like(cases.x)
        row = zero[:, 0]
        count = ops.cast(row, "int32")
        return EOTState(
            p=zero,
            first=zero,
            second=zero,
            iteration=count,
            search=count,
            constant=row + self.constant,
            lower=row,
            upper=row + float("inf"),
            best=zero,
            best_loss=row + float("inf"),
            gradients=count,
            history=ops.repeat(zero[:, :1], self._length, axis=1),
        )

    def mean_power(self, p: Any, cases: Cases) -> Any:
        """Σp²/w, (B, n) -> (B,), in variances of the ECG."""
        from keras import ops

        return ops.sum(ops.square(p), axis=-1) / ops.sum(cases.free, axis=-1)

    def constrain(self, problem: Problem, p: Any, cases: Cases, excess: Any = 1.0) -> Any:
        """Within the window (where ``free`` is 1), the limits and (in ``budget``) the power.

        Args:
            problem: for the limits.
            p: (B, n).
            cases: the batch.
            excess: (B, 1) or a number, what the limit of the power is multiplied by.
        """
        from keras import ops

        p = problem.limits.into(p * cases.free, cases.free)
        if self.schedule == "budget":
            power = self.mean_power(p, cases)[:, None]
            # A hair below the limit, so that no rounding puts the stored signal above it.
            limit = self.power * (1.0 - 1e-6) * excess
            p = p * ops.minimum(1.0, ops.sqrt(limit / ops.maximum(power, 1e-12)))
        return p

    def excess(self, done: Any) -> Any:
        """Limit over ``power`` when this share of the iterations is done; any shape."""
        from keras import ops

        left = ops.maximum(0.0, 1.0 - done / FALLING)
        return ops.exp(math.log(self.start_power) * left)

    def step(self, problem: Problem, cases: Cases, factor: Factor, state: EOTState) -> EOTState:
        """One iteration on a fresh set of views."""
        from keras import ops

        metric, objective = problem.metric, problem.objective
        penalised = self.schedule == "paper" or metric.smooth > 0
        turn = state.search * self._length + state.iteration

        entropy, hit, gradient = objective.gradient(state.p, cases, turn)
        problem.watch((entropy, hit), gradient)
        if penalised:
            gradient = gradient + metric.gradient(state.p) / state.constant[:, None]
        active = state.search < self._searches
        # Judged before the step: these are the loss and the hits of the iterate itself.
        best, best_loss = state.best, state.best_loss
        if self.schedule == "paper":
            power = self.mean_power(state.p, cases)
            inside = ops.logical_and(power >= self.lowest_power, power <= self.highest_power)
            good = ops.logical_and(inside, ops.logical_and(active, hit >= 0.5))
            better = ops.logical_and(good, entropy < best_loss)
            best = ops.where(better[:, None], state.p, best)
            best_loss = ops.where(better, entropy, best_loss)
        mark = ops.one_hot(state.iteration, self._length, dtype="float32")
        mark = mark * ops.cast(active, "float32")[:, None]
        history = state.history * (1.0 - mark) + entropy[:, None] * mark

        iteration = state.iteration + 1
        time = ops.cast(iteration, "float32")[:, None]
        gradient = problem.limits.steer(gradient * cases.free, cases.free)
        if self.schedule == "budget":
            # Unit gradients: early ones are hundreds of times larger than those near the target.
            first, second = 0.9 * state.first + _unit(gradient), state.second
            excess = self.excess(time / self._length)
            # No signal within its peak has more power than the square of the peak.
            most = ops.minimum(self.power * excess, math.inf if self.peak is None else self.peak**2)
            radius = ops.sqrt(most * ops.sum(cases.free, axis=-1, keepdims=True))
            cosine = 0.5 * (1.0 + ops.cos(math.pi * (time - 1.0) / self._length))
            onward = state.p - self._rate * cosine * radius * _unit(first)
            moved = self.constrain(problem, onward, cases, excess)
        else:
            first = 0.9 * state.first + 0.1 * gradient
            second = 0.999 * state.second + 0.001 * ops.square(gradient)
            root = ops.sqrt(second / (1.0 - ops.power(0.999, time))) + 1e-12
            moved = state.p - self._rate * first / (1.0 - ops.power(0.9, time)) / root
            moved = self.constrain(problem, moved, cases)
        p = ops.where(active[:, None], moved, state.p)
        ended = ops.logical_and(iteration >= self._length, active)
        state = state._replace(
            p=p,
            first=first,
            second=second,
            iteration=ops.where(active, iteration, state.iteration),
            best=best,
            best_loss=best_loss,
            gradients=state.gradients + ops.cast(active, "int32") * objective.cost,
            history=history,
            search=state.search + ops.cast(ended, "int32"),
        )
        return state if self.schedule == "budget" else self._searched(cases, state, ended)

    def _searched(self, cases: Cases, state: EOTState, ended: Any) -> EOTState:
        """At the end of a search step: done, or on with another constant from p = 0."""
        from keras import ops

        power = self.mean_power(state.p, cases)
        found = ops.logical_not(ops.isinf(state.best_loss))
        high = ops.logical_and(ended, power > self.highest_power)
        low = ops.logical_and(ended, power < self.lowest_power)
        upper = ops.where(high, state.constant, state.upper)
        lower = ops.where(low, state.constant, state.lower)
        known = ops.logical_and(lower > 0, ops.logical_not(ops.isinf(upper)))
        middle = ops.sqrt(ops.maximum(lower, 1e-12) * ops.where(known, upper, 1.0))
        # A smaller c weighs the distance more. In the band without a hit, the attack needs power.
        outward = ops.where(high, state.constant / 10.0, state.constant * 10.0)
        onward = ops.where(ops.logical_and(known, ops.logical_or(high, low)), middle, outward)
        search = ops.where(
            ops.logical_and(ended, found), ops.full_like(state.search, self._searches), state.search
        )
        again = ops.logical_and(ended, search < self._searches)
        keep = ops.cast(ops.logical_not(again), "float32")[:, None]
        none = ops.logical_and(ended, ops.logical_not(found))
        return state._replace(
            p=state.p * keep,
            first=state.first * keep,
            second=state.second * keep,
            iteration=ops.where(again, ops.zeros_like(state.iteration), state.iteration),
            search=search,
            constant=ops.where(again, onward, state.constant),
            lower=lower,
            upper=upper,
            best=ops.where(none[:, None], state.p, state.best),
        )

    def finish(self, problem: Problem, cases: Cases, factor: Factor, state: EOTState) -> EOTState:
        """Scale the result into the limits."""
        from keras import ops

        if self.schedule == "budget":
            return state._replace(best=self.constrain(problem, state.p, cases))
        best = self.constrain(problem, state.best, cases)
        power = self.mean_power(best, cases)[:, None]
        shrink = ops.minimum(1.0, ops.sqrt(self.highest_power / ops.maximum(power, 1e-12)))
        return state._replace(best=best * shrink)

    def found(self, state: EOTState) -> Found:
        """Success is the evaluation's to decide; by the solver's own account all that ended."""
        done = state.search >= self._searches
        return Found(
            delta=state.best,
            success=done,
            done=done,
            gradients=state.gradients,
            forwards=state.gradients * 0,
            history=state.history,
        )


def _unit(rows: Any) -> Any:
    """Rows of Euclidean length 1; a row of zeros stays."""
    from keras import ops

    return rows / (ops.sqrt(ops.sum(ops.square(rows), axis=-1, keepdims=True)) + 1e-12)
