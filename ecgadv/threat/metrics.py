"""The three distances as quadratic forms d(δ) = δᵀQδ, each operation O(n log n) at most.

Paper, section "Metrics": ``l2`` is the squared Euclidean norm, ``diff`` the smoothness d_smooth =
10⁴·Var(e) over the n + 1 numbers e_0 = 0, e_i = δ_i − δ_{i−1}, e_n = −δ_{n−1}, and ``diffl2`` their
sum with the first weighted by k = 0.01. Written out, the sum over e telescopes to −δ_0, so

    Q = smooth · s · T + energy · I,  s = 10⁴/(n + 1),
    T tridiagonal with T_00 = 1 − 1/(n + 1), T_ii = 2, T_{i,i±1} = −1.

All perturbations are in standardised units (multiples of the record's standard deviation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge

from ecgadv.errors import ConfigError
from ecgadv.threat.both import ops_of

SMOOTH_SCALE = 1e4
"""Factor in front of the variance in d_smooth."""

ENERGY_SHARE = 0.01
"""k: the weight of d_l2 in ``diffl2``."""

Weight = Annotated[float, Ge(0)]


def d_l2(delta: Any) -> Any:
    """Squared Euclidean norm, (…, n) -> (…)."""
    xp = ops_of(delta)
    return xp.sum(xp.square(delta), axis=-1)


def d_smooth(delta: Any) -> Any:
    """10⁴ times the population variance of the n + 1 increments, (…, n) -> (…)."""
    xp = ops_of(delta)
    n = delta.shape[-1]
    steps = delta[..., 1:] - delta[..., :-1]
    square = xp.sum(xp.square(steps), axis=-1) + xp.square(delta[..., -1])
    mean = delta[..., 0] / (n + 1)
    return SMOOTH_SCALE * (square / (n + 1) - xp.square(mean))


class Factor(NamedTuple):
    """Q + ridge·I restricted to a mask, as s·(L D Lᵀ), ready for linear scans.

    Attributes:
        free: (rows, n) 1 where δ may be nonzero; rows is 1 or B.
        diagonal: (rows, n) s·d_i.
        forward: (levels, rows, n) coefficients of y_i = g_i + a_i·y_{i−1}, doubled per level.
        backward: (levels, rows, n) those of δ_i = v_i + b_i·δ_{i+1}.
    """

    free: Any
    diagonal: Any
    forward: Any
    backward: Any


def _doubled(coefficient: np.ndarray, step: int, floor: float = 1e-9) -> np.ndarray:
    """Kogge-Stone levels A_1, A_2, A_4, … of a first-order recurrence running in one direction."""
    n = coefficient.shape[-1]
    levels = [coefficient]
    width = 1
    while 2 * width < n and np.abs(levels[-1]).max() > floor:
        current = levels[-1]
        shifted = np.zeros_like(current)
        if step > 0:
            shifted[..., width:] = current[..., :-width]
        else:
            shifted[..., :-width] = current[..., width:]
        levels.append(current * shifted)
        width *= 2
    return np.stack(levels)


def _scan(values: Any, levels: Any, step: int) -> Any:
    """Solve the recurrence in log₂(levels) shifted multiply-adds."""
    xp = ops_of(values)
    width = 1
    for level in range(levels.shape[0]):
        pad = xp.zeros_like(values[..., :width])
        if step > 0:
            moved = xp.concatenate([pad, values[..., :-width]], axis=-1)
        else:
            moved = xp.concatenate([values[..., width:], pad], axis=-1)
        values = values + levels[level] * moved
        width *= 2
    return values


@dataclass(frozen=True)
class Quadratic:
    """A distance δᵀQδ with Q = smooth·s·T + energy·I.

    Attributes:
        name: as in configurations and columns.
        smooth: weight of d_smooth.
        energy: weight of d_l2.
        ridge: ρ added to Q inside solvers that work in the metric's own geometry; keeps ``diff``
            from drifting hundreds of standard deviations along directions that cost it nothing.
    """

    name: str
    smooth: float
    energy: float
    ridge: float = 0.0

    in_every_run: ClassVar[bool] = False
    """Whether it is reported whatever metric a run has."""

    @property
    def column(self) -> str:
        """Column of ``cases.csv`` that holds it, and its name among MLflow's metrics."""
        return f"d_{self.name}"

    @property
    def label(self) -> str:
        """How it is written in figures and tables."""
        return self.column

    @property
    def help(self) -> str:
        """What it is, in a line."""
        return f"size of the perturbation by metric={self.name}"

    def __post_init__(self) -> None:
        if min(self.smooth, self.energy, self.ridge) < 0 or self.smooth + self.energy <= 0:
            raise ConfigError(f"metric {self.name}: weights must not be negative, nor all zero")

    def value(self, delta: Any) -> Any:
        """d(δ), (B, n) -> (B,); several leads, (B, n, leads), add up."""
        if len(delta.shape) == 3:
            return sum(self.value(delta[..., lead]) for lead in range(delta.shape[-1]))
        if self.energy and self.smooth:
            return self.smooth * d_smooth(delta) + self.energy * d_l2(delta)
        return self.smooth * d_smooth(delta) if self.smooth else self.energy * d_l2(delta)

    def over(self, leads: int) -> Quadratic:
        """The same distance of records of several leads, one after the other: it adds up."""
        return self if leads == 1 else OverLeads(self, leads)

    def apply(self, delta: Any) -> Any:
        """Q·δ, (…, n) -> (…, n)."""
        if not self.smooth:
            return self.energy * delta
        xp = ops_of(delta)
        n = delta.shape[-1]
        zero = xp.zeros_like(delta[..., :1])
        before = xp.concatenate([zero, delta[..., :-1]], axis=-1)
        after = xp.concatenate([delta[..., 1:], zero], axis=-1)
        first = xp.concatenate([delta[..., :1], xp.zeros_like(delta[..., 1:])], axis=-1)
        product = 2.0 * delta - before - after - (1.0 + 1.0 / (n + 1)) * first
        return (self.smooth * SMOOTH_SCALE / (n + 1)) * product + self.energy * delta

    def gradient(self, delta: Any) -> Any:
        """∇d = 2Qδ, (…, n) -> (…, n)."""
        return 2.0 * self.apply(delta)

    def factor(self, n: int, mask: np.ndarray | None = None, ridge: float | None = None) -> Factor:
        """L D Lᵀ of Q + ρI on the free samples, in float64.

        Without a ridge and for pure ``diff`` this is the closed form d_i = (n − i)/(n + 1 − i): the
        recurrence d_{i+1} = t_{i+1} − 1/d_i reproduces it, restarts after every masked sample, and
        runs top-down, so a record shorter than n uses the leading part.

        Args:
            n: samples.
            mask: (B, n) bool of free samples; None means all.
            ridge: ρ; default the metric's own.
        """
        rho = self.ridge if ridge is None else ridge
        free = np.ones((1, n), bool) if mask is None else np.asarray(mask, dtype=bool)
        scale = self.smooth * SMOOTH_SCALE / (n + 1)
        if not scale:
            diagonal = np.full((1, n), self.energy + rho)
            none = np.zeros((0, 1, n))
            return Factor(free.astype(np.float64), diagonal, none, none)
        t = np.full(n, 2.0 + (self.energy + rho) / scale)
        t[0] -= 1.0 + 1.0 / (n + 1)
        d = np.empty(free.shape)
        d[:, 0] = t[0]
        linked = free[:, :-1] & free[:, 1:]
        for i in range(1, n):
            d[:, i] = t[i] - linked[:, i - 1] / d[:, i - 1]
        ratio = np.zeros(free.shape)
        ratio[:, :-1] = linked / d[:, :-1]  # −L_{i+1,i}
        down = np.zeros(free.shape)
        down[:, 1:] = ratio[:, :-1]
        return Factor(free.astype(np.float64), scale * d, _doubled(down, 1), _doubled(ratio, -1))

    @staticmethod
    def solve(factor: Factor, gradient: Any) -> Any:
        """(Q + ρI)⁻¹·g on the free samples, (B, n) -> (B, n), zero elsewhere."""
        y = _scan(gradient * factor.free, factor.forward, 1)
        return _scan(y / factor.diagonal * factor.free, factor.backward, -1) * factor.free

    @staticmethod
    def whiten(factor: Factor, delta: Any) -> Any:
        """Coordinates u = Rδ with Q + ρI = RᵀR, (B, n) -> (B, n); δ is zero outside the mask."""
        xp = ops_of(delta)
        if not factor.backward.shape[0]:
            return delta * xp.sqrt(factor.diagonal)
        ahead = xp.concatenate([delta[..., 1:], xp.zeros_like(delta[..., :1])], axis=-1)
        return xp.sqrt(factor.diagonal) * (delta - factor.backward[0] * ahead) * factor.free

    @staticmethod
    def unwhiten(factor: Factor, u: Any) -> Any:
        """δ = R⁻¹u, the inverse of :meth:`whiten`."""
        xp = ops_of(u)
        return _scan(u * factor.free / xp.sqrt(factor.diagonal), factor.backward, -1) * factor.free


class L2(Quadratic):
    """``l2``: the squared Euclidean norm."""

    in_every_run = True
    column = "d_l2"
    label = "d_l2"
    help = "sum of squares of the perturbation, standardised units"

    def __init__(self, ridge: Weight = 0.0) -> None:
        super().__init__("l2", 0.0, 1.0, ridge)


class Diff(Quadratic):
    """``diff``: smoothness alone. The ridge bounds the drift that it does not see."""

    in_every_run = True
    column = "d_smooth"
    label = "d_smooth"
    help = "10⁴ times the variance of the perturbation's increments, standardised units"

    def __init__(self, ridge: Weight = 2.7e-4) -> None:
        super().__init__("diff", 1.0, 0.0, ridge)


class DiffL2(Quadratic):
    """``diffl2``: smoothness plus k times the squared norm; each k is a distance of its own."""

    in_every_run = True

    def __init__(self, k: Weight = ENERGY_SHARE, ridge: Weight = 0.0) -> None:
        super().__init__("diffl2", 1.0, k, ridge)

    @property
    def column(self) -> str:
        """``d_smooth_l2``; with another k than the paper's, ``d_smooth_0.1_l2``."""
        return "d_smooth_l2" if self.energy == ENERGY_SHARE else f"d_smooth_{self.energy:g}_l2"

    @property
    def label(self) -> str:
        """``d_smooth + 0.01 d_l2``."""
        return f"d_smooth + {self.energy:g} d_l2"

    @property
    def help(self) -> str:
        """What it is."""
        return self.label


class OverLeads(Quadratic):
    """A distance added up over leads that lie one after the other in one vector of leads·n.

    Its Q has a block for each lead, so every recurrence starts anew where a lead begins.
    """

    def __init__(self, one: Quadratic, leads: int) -> None:
        super().__init__(one.name, one.smooth, one.energy, one.ridge)
        object.__setattr__(self, "one", one)
        object.__setattr__(self, "leads", leads)

    one: Quadratic
    leads: int

    @property
    def column(self) -> str:
        """That of one lead."""
        return self.one.column

    @property
    def label(self) -> str:
        """That of one lead."""
        return self.one.label

    @property
    def help(self) -> str:
        """That of one lead."""
        return self.one.help

    def value(self, delta: Any) -> Any:
        """d(δ), (B, leads·n) or (B, n, leads) -> (B,)."""
        xp = ops_of(delta)
        if len(delta.shape) == 3:
            delta = xp.reshape(xp.transpose(delta, (0, 2, 1)), (delta.shape[0], -1))
        rows = xp.reshape(delta, (-1, delta.shape[-1] // self.leads))
        return xp.sum(xp.reshape(self.one.value(rows), (-1, self.leads)), axis=-1)

    def apply(self, delta: Any) -> Any:
        """Q·δ, (B, leads·n) -> (B, leads·n)."""
        xp, n = ops_of(delta), delta.shape[-1]
        rows = xp.reshape(delta, (-1, n // self.leads))
        return xp.reshape(self.one.apply(rows), (-1, n))

    def factor(self, n: int, mask: np.ndarray | None = None, ridge: float | None = None) -> Factor:
        """L D Lᵀ of Q + ρI, a block for each lead; ``n`` and ``mask`` count all leads' samples."""
        rows = None if mask is None else np.asarray(mask, bool).reshape(-1, n // self.leads)
        parts = self.one.factor(n // self.leads, rows, ridge)

        def whole(part: np.ndarray) -> np.ndarray:
            if part.shape[-2] == 1:
                return np.tile(part, self.leads)
            return part.reshape(*part.shape[:-2], part.shape[-2] // self.leads, n)

        return Factor(*(whole(part) for part in parts))


METRICS: dict[str, type[Quadratic]] = {"l2": L2, "diff": Diff, "diffl2": DiffL2}


def get(name: str | Quadratic) -> Quadratic:
    """A metric by name; raises :class:`ConfigError` for an unknown one."""
    if isinstance(name, Quadratic):
        return name
    if not isinstance(name, str) or name not in METRICS:
        raise ConfigError(f"metric={name}: unknown; there are {', '.join(METRICS)}")
    return METRICS[name]()  # type: ignore[call-arg]
