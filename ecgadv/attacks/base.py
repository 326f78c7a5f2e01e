"""What every attack is: pure init and step over a batched state, driven by the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from ecgadv import backend
from ecgadv.errors import ConfigError
from ecgadv.options import check_fields
from ecgadv.spelling import show
from ecgadv.threat.goals import Goal
from ecgadv.threat.limits import Limits, spans_of
from ecgadv.threat.metrics import Factor, Quadratic
from ecgadv.threat.objectives import Cases, Objective


@dataclass(frozen=True)
class Problem:
    """What stays the same over a chunk.

    Attributes:
        objective: margins of perturbed records, and their gradients.
        metric: the distance to be small.
        seed: of the run.
        exact: the objective in float32 where ``objective`` computes in a coarser arithmetic.
        limits: band and peak that every iterate keeps; the engine's, from the attack and victim.
        seen: where the engine collects, a step at a time, what :meth:`watch` was told.
    """

    objective: Objective
    metric: Quadratic
    seed: int = 0
    exact: Objective | None = None
    limits: Limits = field(default_factory=Limits)
    seen: list[Any] | None = field(default=None, compare=False, repr=False)

    @property
    def judge(self) -> Objective:
        """The objective in float32."""
        return self.exact or self.objective

    def value_and_grad(self, loss: backend.Loss) -> Callable[..., tuple[tuple[Any, Any], Any]]:
        """:func:`ecgadv.backend.value_and_grad`, watched: how a step differentiates.

        Everything that the loss returns counts, so a margin beside it does too. Not for the body of
        a loop of the backend: there, differentiate without, and :meth:`watch` the sums.
        """
        differentiate = backend.value_and_grad(loss)

        def watched(x: Any, *args: Any) -> tuple[tuple[Any, Any], Any]:
            values, gradient = differentiate(x, *args)
            self.watch(values, gradient)
            return values, gradient

        return watched

    def watch(self, values: Any, gradient: Any) -> None:
        """Tell the engine whether each case has finite (B,) values and a finite (B, n) gradient.

        The squares of a gradient must be finite too, as every solver adds them up.
        """
        from keras import ops

        seen = self.seen
        if seen is None:
            return
        backend.map_tensors(lambda value: seen.append(ops.isfinite(value)), values)
        seen.append(ops.isfinite(ops.sum(ops.square(gradient), axis=-1)))


class Found(NamedTuple):
    """The part of a state that the engine reads.

    Attributes:
        delta: (B, n) best successful perturbation, else the last attempt.
        success: (B,) bool, by the solver's own account (verification decides later).
        done: (B,) bool, nothing more will change.
        gradients: (B,) int32 gradient evaluations spent.
        forwards: (B,) int32 forward evaluations spent without a gradient.
        history: (B, steps) loss of every iteration, where the attack keeps it.
        broken_at: (B,) step whose gradient was not finite, 0 where all were; of direct attacks
            only, as the engine watches the others.
    """

    delta: Any
    success: Any
    done: Any
    gradients: Any
    forwards: Any
    history: Any = None
    broken_at: Any = None


class Attack(ABC):
    """A solver. Subclasses are frozen dataclasses of their options.

    ``init`` and ``step`` take and return named tuples of tensors with a leading case axis, and no
    operation in them may mix cases: the engine compiles them, drops finished cases and re-batches.
    A step differentiates by ``problem.value_and_grad``; a case for which that is not finite keeps
    the state from before the step and goes no further, so no step need handle NaN.

    Attributes:
        name: as in configurations.
        needs: what the victim must give, see :attr:`ecgadv.victims.victim.Victim.can`.
        minimises: whether it looks for the smallest perturbation; else its budget is fixed.
        coarse_gradients: whether gradients in bfloat16 do, because it ends with a float32 search.
        ridged: whether it works in the metric's own geometry, and so with its ridge.
        baseline: whether a benchmark's paired ratios refer to it.
        quick: options of a run that takes seconds on a small victim and succeeds, for tests.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    minimises: ClassVar[bool] = True
    coarse_gradients: ClassVar[bool] = False
    ridged: ClassVar[bool] = True
    baseline: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        """Check every option by its annotation; a subclass adds what several have to do with."""
        check_fields(self, "attack")
        _ = self.limits

    @property
    def limits(self) -> Limits:
        """Band and peak that every iterate keeps, from the options of those names.

        Raises:
            ConfigError: they are out of range, or there is a band and a mask with gaps.
        """
        band, mask = getattr(self, "band", None), getattr(self, "mask", None)
        if mask is not None and len(spans_of(mask)) > 1 and band is not None:
            raise ConfigError(
                f"attack.band={show(band)} attack.mask={show(mask)}: a signal within a band cannot "
                "have gaps; give one span, or no band"
            )
        return Limits(band, getattr(self, "peak", None))

    def limits_for(self, fs: float, leads: int) -> Limits:
        """The same at a sampling rate in Hz, for recordings of so many leads.

        Raises:
            ConfigError: the band ends beyond half the sampling rate.
        """
        return replace(self.limits, fs=fs, leads=leads)

    @abstractmethod
    def max_steps(self) -> int:
        """Steps after which every case is done at the latest."""

    def look_every(self) -> int:
        """Steps between two looks at which cases are done."""
        return self.max_steps()

    @abstractmethod
    def init(self, problem: Problem, cases: Cases, factor: Factor) -> Any:
        """The state before the first step."""

    @abstractmethod
    def step(self, problem: Problem, cases: Cases, factor: Factor, state: Any) -> Any:
        """One iteration of every case that is not done."""

    def finish(self, problem: Problem, cases: Cases, factor: Factor, state: Any) -> Any:
        """Last touches after the loop, such as a line search by forwards only."""
        return state

    @abstractmethod
    def found(self, state: Any) -> Found:
        """The common part of a state."""


class DirectAttack(ABC):
    """An attack of another library, which does a chunk in one call instead of init and step.

    Subclasses are frozen dataclasses of their options.

    Attributes:
        name: as in configurations.
        needs: what the victim must give, see :attr:`ecgadv.victims.victim.Victim.can`.
        minimises, ridged, baseline, quick: see :class:`Attack`.
        backends: those that it works on; () for all.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    minimises: ClassVar[bool] = True
    ridged: ClassVar[bool] = False
    baseline: ClassVar[bool] = False
    quick: ClassVar[Mapping[str, Any]] = {}
    backends: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Check every option by its annotation."""
        check_fields(self, "attack")

    def check(self, goal: Goal, shifts: int, injected: bool) -> None:
        """Refuse what it cannot do, before anything runs.

        Args:
            goal: what counts as reached.
            shifts: random onsets that it would average over.
            injected: whether it would make an injected signal.

        Raises:
            ConfigError: it edits recordings as they are stored, so the last two must be none.
        """
        if injected:
            raise ConfigError(
                f"attack={self.name}: edits recordings, so it needs threat_model=type1"
            )
        if shifts:
            raise ConfigError(f"attack={self.name}: cannot average over shifts; use eot=none")

    @abstractmethod
    def solver(self, problem: Problem) -> Callable[[Cases], Found]:
        """A function that attacks one chunk: NumPy cases in, NumPy parts of :class:`Found` out."""
