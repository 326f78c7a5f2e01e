"""What an attack wants from the victim, as a margin per case.

The margin of a targeted case is Z_t − max_{i≠t} Z_i, of an untargeted one max_{i≠s} Z_i − Z_s. A
success needs a margin of at least ``SUCCESS_MARGIN``·max(1, max|Z|), so that no rounding, backend
or batch size turns it over; solvers aim for a little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ecgadv.victims.loading import Victim

SUCCESS_MARGIN = 1e-3
"""Share of max(1, max|Z|) by which the target must lead."""

AIM_MARGIN = 1.5e-3
"""What solvers aim for: verification in another precision must not undo a success."""

ONSET_ROUNDS = 128
"""Sets of onsets drawn per case; one is used per iteration, in turn."""

UNTARGETED = -1
"""Index that stands for "any class but the source"."""


class Cases(NamedTuple):
    """A batch of cases as tensors or arrays; everything that decides them, and nothing else.

    Here and in every attack n counts the samples of all leads, which lie one after the other.

    Attributes:
        x: (B, n) standardised, zero-padded records.
        valid: (B, n) 1 on the samples that std(·) counts.
        free: (B, n) 1 on the samples that may be perturbed.
        source: (B,) int class index that the victim must leave.
        target: (B,) int class index wanted, or ``UNTARGETED``.
        lengths: (B,) int samples that std(·) counts.
        onsets: (B, rounds, shifts) int random onsets of the attack, see :func:`draw_onsets`.
    """

    x: Any
    valid: Any
    free: Any
    source: Any
    target: Any
    lengths: Any
    onsets: Any


class Outcome(NamedTuple):
    """Per-case margins.

    Attributes:
        margin: (B,) the margin itself.
        excess: (B,) margin − aim·max(1, max|Z|); a solver has succeeded where it is >= 0.
    """

    margin: Any
    excess: Any


def margin(logits: Any, source: Any, target: Any) -> Any:
    """Margins of tensors: (B, C), (B,), (B,) -> (B,)."""
    from keras import ops

    classes = logits.shape[-1]
    wanted = ops.one_hot(ops.where(target < 0, source, target), classes, dtype="float32")
    at = ops.sum(logits * wanted, axis=-1)
    other = ops.max(logits - 1e9 * wanted, axis=-1)
    return ops.where(target < 0, other - at, at - other)


def margin_array(logits: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The same in float64 NumPy, for verification."""
    values = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(values))
    index = np.where(target < 0, source, target)
    at = values[rows, index]
    rest = values.copy()
    rest[rows, index] = -np.inf
    return np.where(target < 0, rest.max(1) - at, at - rest.max(1))


def required_margin(logits: np.ndarray) -> np.ndarray:
    """(B, C) -> (B,): the margin that counts as success."""
    return SUCCESS_MARGIN * np.maximum(1.0, np.abs(logits).max(1))


class Objective:
    """Margins of perturbed records through std(·), optionally in expectation over shifts.

    Args:
        victim: the classifier attacked.
        shifts: random onsets per evaluation; 0 means the recording is read as stored.
    """

    def __init__(self, victim: Victim, shifts: int = 0) -> None:
        self.victim = victim
        self.shifts = shifts

    @property
    def cost(self) -> int:
        """Forward (or gradient) passes of one evaluation of one case."""
        return max(1, self.shifts)

    def __call__(self, delta: Any, cases: Cases, iteration: Any) -> Outcome:
        """Margins at δ, (B, n) -> (B,) each; ``iteration`` is (B,) int32 and picks the onsets.

        Under shifts the margin is the mean over the less favourable half of them: where that is not
        negative, at least half of the onsets reach the target.
        """
        from keras import ops

        z = self.victim.standardise(cases.x + delta, cases.valid)
        if not self.shifts:
            return self._outcome(self.victim.forward(z), cases.source, cases.target)
        count, leads = self.shifts, self.victim.leads
        n = z.shape[-1] // leads
        turn = ops.mod(iteration, cases.onsets.shape[1])[:, None, None]
        onsets = ops.take_along_axis(cases.onsets, ops.repeat(turn, count, axis=2), axis=1)[:, 0]
        position = ops.arange(n, dtype="int32")
        length = cases.lengths[:, None, None]
        index = ops.where(
            position < length, ops.mod(position + onsets[:, :, None], length), position
        )
        # The same onset on all leads.
        index = ops.repeat(index[:, :, None, :], leads, axis=2)
        apart = ops.repeat(ops.reshape(z, (-1, 1, leads, n)), count, axis=1)
        views = ops.take_along_axis(apart, index, axis=3)
        logits = self.victim.forward(ops.reshape(views, (-1, leads * n)))
        rows = self._outcome(
            logits, ops.repeat(cases.source, count), ops.repeat(cases.target, count)
        )
        half = max(1, count // 2)
        worst = ops.sort(ops.reshape(rows.margin, (-1, count)), axis=-1)[:, :half]
        excess = ops.sort(ops.reshape(rows.excess, (-1, count)), axis=-1)[:, :half]
        return Outcome(ops.mean(worst, axis=-1), ops.mean(excess, axis=-1))

    @staticmethod
    def _outcome(logits: Any, source: Any, target: Any) -> Outcome:
        from keras import ops

        value = margin(logits, source, target)
        largest = ops.max(ops.abs(ops.stop_gradient(logits)), axis=-1)
        return Outcome(value, value - AIM_MARGIN * ops.maximum(largest, 1.0))


def draw_onsets(seeds: Sequence[int], lengths: np.ndarray, count: int) -> np.ndarray:
    """Random onsets of an attack, uniform on 0 … length − 1, each case from its own seed.

    Args:
        seeds: (B,) one a case, so that a batch mate never changes them.
        lengths: (B,) own samples.
        count: onsets per evaluation; 0 gives a placeholder.

    Returns:
        (B, rounds, count) int32; an attack goes round the rounds.
    """
    if not count:
        return np.zeros((len(lengths), 1, 1), dtype=np.int32)
    rows = [
        np.random.default_rng(seed).integers(0, length, (ONSET_ROUNDS, count), dtype=np.int32)
        for seed, length in zip(seeds, lengths, strict=True)
    ]
    return np.stack(rows)
