"""Type II: what the victim makes of a signal injected at the electrode, in expectation over onsets.

Signal model: std(x + F(S_τ p)), x as its own front end left it; under ``deployment=cloud`` F is the
identity. Only records of at least n samples are attacked, so std(·) runs over all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.threat.objectives import Cases, Objective, Outcome
from ecgadv.threat.transforms import FrontEnd, shift
from ecgadv.victims.loading import Victim


class Injection(Objective):
    """Margins and cross-entropies averaged over views: onsets, and records where there is a pool.

    Args:
        victim: the classifier attacked.
        front_end: F as the attacker models it.
        shifts: views per evaluation; 0 means that the onset is 0 always.
        pool: (K, leads·n) standardised records of universal training; None: each case's own record.
        at_once: views of each case that go through the victim together, which bounds the memory of
            a gradient; None for all.
    """

    def __init__(
        self,
        victim: Victim,
        front_end: FrontEnd | None = None,
        shifts: int = 0,
        pool: np.ndarray | None = None,
        at_once: int | None = None,
    ) -> None:
        super().__init__(victim, shifts)
        self.front_end = front_end or FrontEnd()
        self.pool = pool
        self.at_once = at_once

    @staticmethod
    def chosen(cases: Cases, iteration: Any) -> Any:
        """The views of an iteration, (B,) int32 -> (B, K) int32: record·n + onset."""
        from keras import ops

        turn = ops.mod(iteration, cases.onsets.shape[1])[:, None, None]
        index = ops.repeat(turn, cases.onsets.shape[2], axis=2)
        return ops.take_along_axis(cases.onsets, index, axis=1)[:, 0]

    def views(self, p: Any, cases: Cases, chosen: Any) -> Any:
        """Logits of views, (B, n) and (B, K) int32 -> (B, K, classes)."""
        from keras import ops

        n, leads, count = self.victim.n, self.victim.leads, chosen.shape[1]
        # The same onset on all leads: (B·leads, n) -> (B, K, leads·n).
        onsets = ops.repeat(ops.mod(chosen, n), leads, axis=0)
        sent = self.front_end(shift(ops.reshape(p, (-1, n)), onsets))
        sent = ops.transpose(ops.reshape(sent, (-1, leads, count, n)), (0, 2, 1, 3))
        injected = ops.reshape(sent, (-1, count, leads * n))
        if self.pool is None:
            signal, valid = cases.x[:, None, :] + injected, cases.valid[:, None, :]
            valid = ops.repeat(valid, count, axis=1)
        else:
            records = ops.convert_to_tensor(np.asarray(self.pool, np.float32))
            signal = ops.take(records, ops.floor_divide(chosen, n), axis=0) + injected
            valid = ops.ones_like(signal)
        whole = (-1, leads * n)
        rows = self.victim.standardise(ops.reshape(signal, whole), ops.reshape(valid, whole))
        return ops.reshape(self.victim.forward(rows), (-1, count, len(self.victim.classes)))

    @staticmethod
    def entropies(logits: Any, cases: Cases) -> tuple[Any, Any]:
        """Cross-entropy toward the target, and 1 where it is reached: (B, K, classes) -> (B, K).

        Untargeted cases count the probability of all classes but the source.
        """
        from keras import ops

        classes = logits.shape[-1]
        aimed = ops.cast(cases.target >= 0, "float32")[:, None, None]
        wanted = ops.one_hot(ops.maximum(cases.target, 0), classes, dtype="float32")[:, None, :]
        left = 1.0 - ops.one_hot(cases.source, classes, dtype="float32")[:, None, :]
        allowed = aimed * wanted + (1.0 - aimed) * left
        inside = ops.logsumexp(logits - 1e9 * (1.0 - allowed), axis=-1)
        entropy = ops.logsumexp(logits, axis=-1) - inside
        best = ops.argmax(logits, axis=-1)
        hit = ops.sum(ops.one_hot(best, classes, dtype="float32") * allowed, axis=-1)
        return entropy, hit

    def cross_entropy(self, p: Any, cases: Cases, iteration: Any) -> tuple[Any, Any]:
        """Mean cross-entropy of an iteration's views, and the share of them that are hits, (B,)."""
        from keras import ops

        entropy, hit = self.entropies(self.views(p, cases, self.chosen(cases, iteration)), cases)
        return ops.mean(entropy, axis=-1), ops.mean(hit, axis=-1)

    def gradient(self, p: Any, cases: Cases, iteration: Any) -> tuple[Any, Any, Any]:
        """:meth:`cross_entropy` and its gradient, ``at_once`` views after one another.

        Returns:
            (B,) mean cross-entropy, (B,) share of hits, (B, n) gradient of the first.
        """
        from keras import ops

        views = self.chosen(cases, iteration)
        count = views.shape[1]
        group = min(self.at_once or count, count)
        turns = -(-count // group)
        # The last turn is filled up with views that weigh nothing.
        weights = (np.arange(turns * group) < count).astype(np.float32).reshape(turns, group)

        def loss(q: Any, part: Any, weight: Any) -> tuple[Any, Any]:
            entropy, hit = self.entropies(self.views(q, cases, part), cases)
            return ops.sum(entropy * weight, axis=-1), ops.sum(hit * weight, axis=-1)

        differentiate = backend.value_and_grad(loss)
        if turns == 1:
            (entropy, hit), gradient = differentiate(p, views, ops.convert_to_tensor(weights))
            return entropy / count, hit / count, gradient / count
        views = ops.concatenate([views, views[:, : turns * group - count]], axis=1)
        parts = ops.transpose(ops.reshape(views, (-1, turns, group)), (1, 0, 2))
        weighed = ops.convert_to_tensor(weights)

        def add(turn: Any, sums: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            # The zero makes each turn wait for the one before, or the loop would run them together.
            at = p + 0.0 * sums[2]
            part, weight = ops.take(parts, turn, axis=0), ops.take(weighed, turn, axis=0)
            (entropy, hit), gradient = differentiate(at, part, weight[None])
            return sums[0] + entropy, sums[1] + hit, sums[2] + gradient

        start = (ops.zeros_like(p[:, 0]), ops.zeros_like(p[:, 0]), ops.zeros_like(p))
        entropy, hit, gradient = ops.fori_loop(0, turns, add, start)
        return entropy / count, hit / count, gradient / count

    def __call__(self, delta: Any, cases: Cases, iteration: Any) -> Outcome:
        """Margins as in :class:`Objective`: the mean over the less favourable half of the views."""
        from keras import ops

        logits = self.views(delta, cases, self.chosen(cases, iteration))
        count = logits.shape[1]
        rows = self._outcome(
            ops.reshape(logits, (-1, logits.shape[-1])),
            ops.repeat(cases.source, count),
            ops.repeat(cases.target, count),
        )
        half = max(1, count // 2)
        worst = ops.sort(ops.reshape(rows.margin, (-1, count)), axis=-1)[:, :half]
        excess = ops.sort(ops.reshape(rows.excess, (-1, count)), axis=-1)[:, :half]
        return Outcome(ops.mean(worst, axis=-1), ops.mean(excess, axis=-1))
