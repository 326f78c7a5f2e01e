"""What an attack optimises: a goal on a victim, behind a channel as the attacker models it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ecgadv import backend
from ecgadv.threat.channel import Channel, Views
from ecgadv.threat.goals import Aim, Exclusive, Goal, Outcome
from ecgadv.victims.loading import Victim


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
        views: (B, rounds, K) each, see :meth:`Channel.draw`; an attack goes round the rounds.
        clean: (B, C) mean logits of the unperturbed record; None where there is a pool.
    """

    x: Any
    valid: Any
    free: Any
    source: Any
    target: Any
    lengths: Any
    views: Views
    clean: Any = None

    def on_device(self) -> Cases:
        """The same as tensors."""
        whole = ("source", "target", "lengths", "views")

        def convert(name: str, part: Any) -> Any:
            kind = "int32" if name in whole else "float32"
            return backend.map_tensors(lambda value: backend.tensor(value, kind), part)

        return Cases(*map(convert, self._fields, self))


class Objective:
    """Margins, losses and gradients of perturbed records, in expectation over views.

    Args:
        victim: the classifier attacked.
        goal: what is wanted.
        channel: how a perturbation arrives, as the attacker models it.
        shifts: views per evaluation; 0 where the onset does not move.
        at_once: views of each case that a gradient of the loss takes together, which bounds its
            memory; None for all.
        clean: (R, C) logits of the unperturbed records of the channel's pool.
    """

    def __init__(
        self,
        victim: Victim,
        goal: Goal | None = None,
        channel: Channel | None = None,
        shifts: int = 0,
        at_once: int | None = None,
        clean: np.ndarray | None = None,
    ) -> None:
        self.victim, self.goal = victim, goal or Exclusive()
        self.channel = channel or Channel(leads=victim.leads)
        self.shifts, self.at_once, self.clean = shifts, at_once, clean

    @property
    def cost(self) -> int:
        """Forward (or gradient) passes of one evaluation of one case."""
        return max(1, self.shifts)

    @staticmethod
    def chosen(cases: Cases, iteration: Any) -> Views:
        """The views of an iteration, (B,) int32 -> (B, K) each."""
        from keras import ops

        rounds, count = cases.views.onset.shape[1:]
        if rounds == 1:
            return Views(*(part[:, 0] for part in cases.views))
        turn = ops.repeat(ops.mod(iteration, rounds)[:, None, None], count, axis=2)
        return Views(*(ops.take_along_axis(part, turn, axis=1)[:, 0] for part in cases.views))

    def logits(self, delta: Any, cases: Cases, views: Views) -> Any:
        """Logits of views, (B, n) and (B, K) -> (B, K, classes)."""
        from keras import ops

        victim, channel = self.victim, self.channel
        if channel.injected:
            signal = channel.arrive(cases.x, delta, views, cases.lengths)
            count, width = signal.shape[1:]
            valid = ops.repeat(cases.valid[:, None, :], count, axis=1)
            if channel.pool is not None:
                valid = ops.ones_like(signal)
            z = victim.standardise(*(ops.reshape(part, (-1, width)) for part in (signal, valid)))
        else:
            # What moves is the whole record, which std(·) does not see: once does for all views.
            z = victim.standardise(cases.x + delta, cases.valid)
            arriving = channel.arrive(z, None, views, cases.lengths)
            count, width = arriving.shape[1:]
            z = ops.reshape(arriving, (-1, width))
        logits = victim.forward(z)
        return ops.reshape(logits, (-1, count, logits.shape[-1]))

    def aim(self, cases: Cases, views: Views, count: int) -> Aim:
        """What is wanted of each reading, case after case: (B·K,)."""
        from keras import ops

        own = Aim(cases.source, cases.target, cases.clean)
        if count > 1:
            own = Aim(*(None if part is None else ops.repeat(part, count, axis=0) for part in own))
        if self.clean is None:
            return own
        pool = ops.convert_to_tensor(np.asarray(self.clean, np.float32))
        clean = ops.take(pool, ops.reshape(views.record, (-1,)), axis=0)
        # Each record of a pool is left from the class that it is read as.
        return own._replace(clean=clean, source=ops.cast(ops.argmax(clean, axis=-1), "int32"))

    def __call__(self, delta: Any, cases: Cases, iteration: Any) -> Outcome:
        """Margins at δ, (B, n) -> (B,) each; ``iteration`` is (B,) int32 and picks the views.

        Of several views it is the mean over the less favourable half of them: where that is not
        negative, at least half of the views reach the goal.
        """
        from keras import ops

        views = self.chosen(cases, iteration)
        logits = self.logits(delta, cases, views)
        _, count, classes = logits.shape
        each = self.goal.outcome(ops.reshape(logits, (-1, classes)), self.aim(cases, views, count))
        if count == 1:
            return each
        half = max(1, count // 2)
        worst = (ops.sort(ops.reshape(part, (-1, count)), axis=-1)[:, :half] for part in each)
        return Outcome(*(ops.mean(part, axis=-1) for part in worst))

    def _losses(self, delta: Any, cases: Cases, views: Views) -> tuple[Any, Any]:
        """Loss of each view, and 1 where it reaches the goal: (B, n) -> (B, K) each."""
        from keras import ops

        logits = self.logits(delta, cases, views)
        _, count, classes = logits.shape
        rows, aim = ops.reshape(logits, (-1, classes)), self.aim(cases, views, count)
        parts = (self.goal.loss(rows, aim), self.goal.hit(rows, aim))
        loss, hit = (ops.reshape(part, (-1, count)) for part in parts)
        return loss, hit

    def loss(self, delta: Any, cases: Cases, iteration: Any) -> tuple[Any, Any]:
        """Mean loss of an iteration's views, and the share of them that are hits, (B,) each."""
        from keras import ops

        loss, hit = self._losses(delta, cases, self.chosen(cases, iteration))
        return ops.mean(loss, axis=-1), ops.mean(hit, axis=-1)

    def gradient(self, delta: Any, cases: Cases, iteration: Any) -> tuple[Any, Any, Any]:
        """:meth:`loss` and its gradient, ``at_once`` views after one another.

        Returns:
            (B,) mean loss, (B,) share of hits, (B, n) gradient of the first.
        """
        from keras import ops

        views = self.chosen(cases, iteration)
        count = views.onset.shape[1]
        group = min(self.at_once or count, count)
        turns = -(-count // group)
        # The last turn is filled up with views that weigh nothing.
        weights = (np.arange(turns * group) < count).astype(np.float32).reshape(turns, group)

        def total(q: Any, part: Views, weight: Any) -> tuple[Any, Any]:
            loss, hit = self._losses(q, cases, part)
            return ops.sum(loss * weight, axis=-1), ops.sum(hit * weight, axis=-1)

        differentiate = backend.value_and_grad(total)
        if turns == 1:
            (loss, hit), gradient = differentiate(delta, views, ops.convert_to_tensor(weights))
            return loss / count, hit / count, gradient / count

        def in_turns(part: Any) -> Any:
            filled = ops.concatenate([part, part[:, : turns * group - count]], axis=1)
            return ops.transpose(ops.reshape(filled, (-1, turns, group)), (1, 0, 2))

        parts = Views(*map(in_turns, views))
        weighed = ops.convert_to_tensor(weights)

        def add(turn: Any, sums: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            # The zero makes each turn wait for the one before, or the loop would run them together.
            at = delta + 0.0 * sums[2]
            part = Views(*(ops.take(one, turn, axis=0) for one in parts))
            weight = ops.take(weighed, turn, axis=0)
            (loss, hit), gradient = differentiate(at, part, weight[None])
            return sums[0] + loss, sums[1] + hit, sums[2] + gradient

        start = (ops.zeros_like(delta[:, 0]), ops.zeros_like(delta[:, 0]), ops.zeros_like(delta))
        loss, hit, gradient = ops.fori_loop(0, turns, add, start)
        return loss / count, hit / count, gradient / count
