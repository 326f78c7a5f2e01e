"""What counts as reached: one margin a case, and the only definition of success.

A reading reaches its goal where the margin is at least ``SUCCESS_MARGIN``·max(1, max|Z|), so that
no rounding, backend or batch size turns it over; solvers aim for a little more. Judges read margins
of arrays in float64, solvers those of tensors; both come from :meth:`Goal.margin`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.making import instantiate
from ecgadv.threat.both import ops_of

SUCCESS_MARGIN = 1e-3
"""Share of max(1, max|Z|) by which the goal must be passed."""

AIM_MARGIN = 1.5e-3
"""What solvers aim for: verification in another precision must not undo a success."""

UNTARGETED = -1
"""Index that stands for "any class but the source"."""


class Aim(NamedTuple):
    """What is wanted of each of R readings, as tensors or arrays.

    Attributes:
        source: (R,) int class index that the victim must leave.
        target: (R,) int class index wanted, or ``UNTARGETED``.
        clean: (R, C) logits of the unperturbed recording.
    """

    source: Any
    target: Any
    clean: Any = None


class Outcome(NamedTuple):
    """Per-case margins.

    Attributes:
        margin: (B,) the margin itself.
        excess: (B,) margin − aim·max(1, max|Z|); a solver has succeeded where it is >= 0.
    """

    margin: Any
    excess: Any


class Goal(ABC):
    """What an attack wants. Subclasses are frozen dataclasses of their options.

    :meth:`margin` is all that a goal must say; it takes NumPy arrays and tensors alike, by
    ``ops_of(logits)``. No method may mix rows.

    Attributes:
        name: as in configurations and in the column ``goal``.
    """

    name: ClassVar[str]

    @abstractmethod
    def margin(self, logits: Any, aim: Aim) -> Any:
        """(R, C) -> (R,), at least 0 where the goal is reached; NaN where a logit is."""

    def loss(self, logits: Any, aim: Aim) -> Any:
        """What attacks by gradients of a loss minimise, tensors (R, C) -> (R,)."""
        from keras import ops

        return ops.softplus(-self.margin(logits, aim))

    def hit(self, logits: Any, aim: Aim) -> Any:
        """1 where the goal is reached, by whatever margin, else 0; tensors (R, C) -> (R,)."""
        from keras import ops

        return ops.cast(self.margin(logits, aim) >= 0, "float32")

    def outcome(self, logits: Any, aim: Aim) -> Outcome:
        """Margins as solvers see them, tensors (R, C)."""
        from keras import ops

        value = self.margin(logits, aim)
        largest = ops.max(ops.abs(ops.stop_gradient(logits)), axis=-1)
        return Outcome(value, value - AIM_MARGIN * ops.maximum(largest, 1.0))

    def reached(self, logits: np.ndarray, aim: Aim) -> np.ndarray:
        """The definition of success, arrays (R, C) -> (R,) bool."""
        values = np.asarray(logits, np.float64)
        with np.errstate(invalid="ignore"):
            needed = SUCCESS_MARGIN * np.maximum(1.0, np.abs(values).max(1))
            enough = self.margin(values, aim) >= needed
        return np.asarray(enough & np.isfinite(values).all(1))

    def stands(self, clean: np.ndarray, aim: Aim) -> np.ndarray:
        """Whether unperturbed readings, arrays (R, C), leave something to attack: (R,) bool."""
        values = np.asarray(clean, np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.isfinite(values).all(1) & (self.margin(values, aim) < 0))

    def probability(self, logits: np.ndarray, aim: Aim) -> np.ndarray:
        """``p_target``, arrays (R, C) -> (R,)."""
        with np.errstate(over="ignore"):
            away = np.exp(-self.margin(np.asarray(logits, np.float64), aim))
        return np.asarray(1.0 / (1.0 + away))


@dataclass(frozen=True)
class Exclusive(Goal):
    """Classes exclude each other: the target must lead every other one, Z_t − max_{i≠t} Z_i.

    Untargeted, any other class must lead the source: max_{i≠s} Z_i − Z_s.
    """

    name: ClassVar[str] = "exclusive"

    def margin(self, logits: Any, aim: Aim) -> Any:
        """(R, C) -> (R,), the lead of the target, or of the best class but the source."""
        xp = ops_of(logits)
        away = aim.target < 0
        index = xp.where(away, aim.source, aim.target)
        named = xp.arange(logits.shape[-1]) == index[:, None]
        # A product, not a choice: a logit that is not finite must show in the margin.
        at = xp.sum(logits * xp.where(named, 1.0, 0.0), axis=-1)
        other = xp.max(xp.where(named, -np.inf, logits), axis=-1)
        return xp.where(away, other - at, at - other)

    def loss(self, logits: Any, aim: Aim) -> Any:
        """Cross-entropy toward the target, or toward all classes but the source together."""
        from keras import ops

        inside = ops.logsumexp(logits - 1e9 * (1.0 - self._allowed(logits, aim)), axis=-1)
        return ops.logsumexp(logits, axis=-1) - inside

    def hit(self, logits: Any, aim: Aim) -> Any:
        """1 where the class that is read is wanted."""
        from keras import ops

        read = ops.one_hot(ops.argmax(logits, axis=-1), logits.shape[-1], dtype="float32")
        return ops.sum(read * self._allowed(logits, aim), axis=-1)

    @staticmethod
    def _allowed(logits: Any, aim: Aim) -> Any:
        """(R, C) 1 at the classes that are wanted."""
        from keras import ops

        classes = logits.shape[-1]
        aimed = ops.cast(aim.target >= 0, "float32")[:, None]
        wanted = ops.one_hot(ops.maximum(aim.target, 0), classes, dtype="float32")
        left = 1.0 - ops.one_hot(aim.source, classes, dtype="float32")
        return aimed * wanted + (1.0 - aimed) * left

    def stands(self, clean: np.ndarray, aim: Aim) -> np.ndarray:
        """Read as the source, which is not the target."""
        read = np.isfinite(clean).all(1) & (clean.argmax(1) == aim.source)
        return np.asarray(read & (aim.target != aim.source))

    def probability(self, logits: np.ndarray, aim: Aim) -> np.ndarray:
        """Of the target, or of leaving the source."""
        share, rows = softmax(logits), np.arange(len(logits))
        away = np.asarray(aim.target) < 0
        return np.where(away, 1.0 - share[rows, aim.source], share[rows, aim.target])


def softmax(logits: np.ndarray) -> np.ndarray:
    """(…, C) -> (…, C) in float64."""
    values = np.asarray(logits, np.float64)
    share = np.exp(values - values.max(-1, keepdims=True))
    return np.asarray(share / share.sum(-1, keepdims=True))


GOALS: dict[str, type[Goal]] = {"exclusive": Exclusive}


def from_config(node: Mapping[str, Any] | None) -> Goal:
    """From an option of the group ``goal``; None of a run that had no such group.

    Raises:
        ConfigError: there is no such goal, or an option is unknown or out of range.
    """
    if not node:
        return Exclusive()
    made = instantiate(node)
    if not isinstance(made, Goal):
        raise ConfigError(f"goal={node.get('name')}: {node['_target_']} makes no Goal")
    return made


def get(goal: str | Goal) -> Goal:
    """A goal by name; raises :class:`ConfigError` for an unknown one."""
    if isinstance(goal, Goal):
        return goal
    if not isinstance(goal, str) or goal not in GOALS:
        raise ConfigError(f"goal={goal}: unknown; there are {', '.join(GOALS)}")
    return GOALS[goal]()
