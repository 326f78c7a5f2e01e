"""What every attack is: pure init and step over a batched state, driven by :mod:`attacks.engine`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ecgadv.threat.metrics import Factor, Quadratic
from ecgadv.threat.objectives import Cases, Objective


@dataclass(frozen=True)
class Problem:
    """What stays the same over a chunk.

    Attributes:
        objective: margins of perturbed records.
        metric: the distance to be small.
        seed: of the run.
    """

    objective: Objective
    metric: Quadratic
    seed: int = 0


class Found(NamedTuple):
    """The part of a state that the engine reads.

    Attributes:
        delta: (B, n) best successful perturbation, else the last attempt.
        success: (B,) bool, by the solver's own account (verification decides later).
        done: (B,) bool, nothing more will change.
        gradients: (B,) int32 gradient evaluations spent.
        forwards: (B,) int32 forward evaluations spent without a gradient.
    """

    delta: Any
    success: Any
    done: Any
    gradients: Any
    forwards: Any


class Attack(ABC):
    """A solver. Subclasses are frozen dataclasses of their options.

    ``init`` and ``step`` take and return named tuples of tensors with a leading case axis, and no
    operation in them may mix cases: the engine compiles them, drops finished cases and re-batches.
    """

    name: ClassVar[str]

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
