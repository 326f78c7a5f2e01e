"""Fixed-budget attacks of cleverhans 4 as an independent cross-check; TensorFlow backend only.

Papernot N et al. Technical report on the CleverHans v2.1.0 adversarial examples library.
arXiv:1610.00768. The library differentiates the cross-entropy of the victim on std(x + δ); its own
random starts and clipping of the input's range are not used.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from ecgadv import backend
from ecgadv.attacks.base import DirectAttack, Found, Problem
from ecgadv.errors import BackendError, ConfigError
from ecgadv.threat.goals import UNTARGETED, Exclusive, Goal
from ecgadv.threat.objectives import Cases, Objective


@dataclass(frozen=True)
class _Cleverhans(DirectAttack):
    """What the three attacks share.

    Attributes:
        budget: ε, the largest norm of δ in standardised units (for ``l2`` the Euclidean norm
            itself, so d_l2 <= ε²).
        norm: ``l2`` or ``linf``.
        perturb_padding: whether a short record's zero padding may be perturbed.

    Raises:
        ConfigError: an option is out of range.
    """

    minimises: ClassVar[bool] = False
    backends: ClassVar[tuple[str, ...]] = ("tensorflow",)
    quick: ClassVar[Mapping[str, Any]] = {"budget": 4.0}
    budget: Annotated[float, Gt(0)] = 1.0
    norm: Literal["l2", "linf"] = "l2"
    perturb_padding: bool = False

    @property
    def order(self) -> Any:
        """The norm as cleverhans names it."""
        return 2 if self.norm == "l2" else np.inf

    @property
    def gradients(self) -> int:
        """Gradient evaluations a case."""
        return int(getattr(self, "steps", 1))

    @abstractmethod
    def perturb(self, model: Callable[[Any], Any], x: Any, y: Any, targeted: bool) -> Any:
        """Call cleverhans: (B, n, 1) records and (B,) classes -> (B, n, 1) perturbed records."""

    def check(self, goal: Goal, shifts: int, injected: bool) -> None:
        """See :class:`DirectAttack`; the library knows classes only."""
        super().check(goal, shifts, injected)
        if type(goal) is not Exclusive:
            raise ConfigError(
                f"attack={self.name} goal={goal.name}: cleverhans knows goal=exclusive only"
            )

    def solver(self, problem: Problem) -> Callable[[Cases], Found]:
        """A function of one chunk, see :class:`DirectAttack`.

        Raises:
            BackendError: Keras runs on another backend than TensorFlow.
        """
        if backend.running() != "tensorflow":
            raise BackendError(
                f"attack={self.name}: cleverhans needs backend=tensorflow, not {backend.running()}"
            )
        # One callable for all chunks, as cleverhans traces anew for every callable it meets; what
        # differs from chunk to chunk lies here.
        held: dict[tuple[int, ...], tuple[Callable[[Any], Any], Cases, _Watch]] = {}

        def solve(cases: Cases) -> Found:
            import tensorflow as tf

            shape = cases.x.shape
            if shape not in held:
                own = backend.map_tensors(tf.Variable, cases.on_device())
                watch = _Watch(shape[0])
                held[shape] = functools.partial(_logits, problem.objective, own, watch), own, watch
            model, own, watch = held[shape]
            values: list[Any] = []
            backend.map_tensors(values.append, cases.on_device())
            backend.map_tensors(lambda variable: variable.assign(values.pop(0)), own)
            x = tf.convert_to_tensor(own.x)[..., None]
            untargeted = np.asarray(cases.target) == UNTARGETED
            delta, broken_at = np.zeros(shape, np.float32), np.zeros(shape[0], np.int64)
            for targeted in (True, False):
                rows = untargeted != targeted
                if rows.any():
                    goal = np.where(rows, cases.target if targeted else cases.source, 0)
                    y = tf.convert_to_tensor(goal, tf.int32)
                    watch.begin()
                    moved = backend.to_numpy(self.perturb(model, x, y, targeted) - x)[..., 0]
                    delta[rows], broken_at[rows] = moved[rows], watch.broken_at()[rows]
            delta *= np.asarray(cases.free, np.float32)
            lost = (broken_at > 0) | ~np.isfinite(delta).all(axis=1)
            # The library goes on after such a gradient, and clips NaN to its bounds.
            delta[lost] = 0
            excess = backend.to_numpy(judge(backend.tensor(delta, "float32"), cases.on_device()))
            lost |= ~np.isfinite(excess)
            broken_at = np.where(lost & (broken_at == 0), self.gradients, broken_at)
            spent = np.full(len(delta), self.gradients)
            done, forwards = np.ones(len(delta), bool), np.ones_like(spent)
            return Found(delta, excess >= 0, done, spent, forwards, broken_at=broken_at)

        judge = backend.compile(lambda delta, cases: problem.objective(delta, cases, 0).excess)
        return solve


class _Watch:
    """Sees the gradients that the library takes, whose steps hide which were not finite."""

    def __init__(self, count: int) -> None:
        import tensorflow as tf

        step, at = tf.Variable(0), tf.Variable(np.zeros(count, np.int32))

        def back(gradient: Any) -> Any:
            step.assign_add(1)
            finite = tf.math.is_finite(tf.reduce_sum(tf.square(gradient), axis=(1, 2)))
            at.assign(tf.where((at > 0) | finite, at, step))
            return gradient

        self._step, self._at = step, at
        self.through = tf.custom_gradient(lambda x: (tf.identity(x), back))
        """The identity, which notes the gradient that passes on its way back, (B, n, 1)."""

    def begin(self) -> None:
        """Forget all that was seen."""
        self._step.assign(0)
        self._at.assign(0 * self._at)

    def broken_at(self) -> np.ndarray:
        """(B,) int: the first gradient that was not finite, from 1; 0 where all were."""
        return np.asarray(self._at.numpy(), np.int64)


def _logits(objective: Objective, cases: Cases, watch: _Watch, x: Any) -> Any:
    """Logits of perturbed records, (B, n, 1) -> (B, classes); what is not free stays."""
    delta = (watch.through(x)[..., 0] - cases.x) * cases.free
    return objective.logits(delta, cases, objective.chosen(cases, 0))[:, 0]


@dataclass(frozen=True)
class FastGradient(_Cleverhans):
    """One step along the gradient (its sign for ``linf``).

    Goodfellow I, Shlens J, Szegedy C. Explaining and harnessing adversarial examples. ICLR 2015.
    """

    name: ClassVar[str] = "ch_fgm"

    def perturb(self, model: Callable[[Any], Any], x: Any, y: Any, targeted: bool) -> Any:
        """``fast_gradient_method``."""
        from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

        return fast_gradient_method(model, x, self.budget, self.order, y=y, targeted=targeted)


@dataclass(frozen=True)
class _Iterated(_Cleverhans):
    """Options of the iterated attacks.

    Attributes:
        steps: gradient evaluations a case.
        step_size: length of a step over ε, at most 1; None means 2.5/steps.
    """

    quick: ClassVar[Mapping[str, Any]] = {"budget": 4.0, "steps": 10}
    steps: Annotated[int, Ge(1)] = 40
    step_size: Annotated[float, Gt(0), Le(1)] | None = None

    @property
    def length(self) -> float:
        """Length of a step in standardised units."""
        share = 2.5 / self.steps if self.step_size is None else self.step_size
        return min(share, 1.0) * self.budget


@dataclass(frozen=True)
class ProjectedGradient(_Iterated):
    """Steps along the gradient, projected onto the ball; starts at δ = 0.

    Madry A et al. Towards deep learning models resistant to adversarial attacks. ICLR 2018.
    """

    name: ClassVar[str] = "ch_pgd"

    def perturb(self, model: Callable[[Any], Any], x: Any, y: Any, targeted: bool) -> Any:
        """``projected_gradient_descent`` without a random start."""
        from cleverhans.tf2.attacks import projected_gradient_descent as module

        return module.projected_gradient_descent(
            model, x, self.budget, self.length, self.steps, self.order,
            y=y, targeted=targeted, rand_init=False,
        )  # fmt: skip


@dataclass(frozen=True)
class MomentumIterative(_Iterated):
    """Steps along the accumulated gradient.

    Dong Y et al. Boosting adversarial attacks with momentum. CVPR 2018.

    Attributes:
        decay: share of the momentum that stays from step to step.
    """

    name: ClassVar[str] = "ch_mim"
    decay: Annotated[float, Ge(0), Le(1)] = 1.0

    def perturb(self, model: Callable[[Any], Any], x: Any, y: Any, targeted: bool) -> Any:
        """``momentum_iterative_method``."""
        from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method

        return momentum_iterative_method(
            model, x, self.budget, self.length, self.steps, self.order,
            y=y, targeted=targeted, decay_factor=self.decay, sanity_checks=False,
        )  # fmt: skip
