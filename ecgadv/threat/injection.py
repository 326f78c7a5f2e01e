"""Type II: what the victim makes of a signal injected at the electrode, in expectation over onsets.

Signal model: std(x + F(S_τ p)), x as its own front end left it; under ``deployment=cloud`` F is the
identity. Only records of at least n samples are attacked, so std(·) runs over all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgadv.threat.objectives import Cases, Objective, Outcome
from ecgadv.threat.transforms import FrontEnd, shift
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import standardise


class Injection(Objective):
    """Margins and cross-entropies averaged over views: onsets, and records where there is a pool.

    Args:
        victim: the classifier attacked.
        front_end: F as the attacker models it.
        shifts: views per evaluation; 0 means that the onset is 0 always.
        pool: (K, n) standardised records of universal training; None: each case's own record.
    """

    def __init__(
        self,
        victim: Victim,
        front_end: FrontEnd | None = None,
        shifts: int = 0,
        pool: np.ndarray | None = None,
    ) -> None:
        super().__init__(victim, shifts)
        self.front_end = front_end or FrontEnd()
        self.pool = pool

    def views(self, p: Any, cases: Cases, iteration: Any) -> Any:
        """Logits of every view of an iteration, (B, n) and (B,) int32 -> (B, K, classes)."""
        from keras import ops

        n = p.shape[-1]
        count = cases.onsets.shape[2]
        turn = ops.mod(iteration, cases.onsets.shape[1])[:, None, None]
        chosen = ops.take_along_axis(cases.onsets, ops.repeat(turn, count, axis=2), axis=1)[:, 0]
        injected = self.front_end(shift(p, ops.mod(chosen, n)))
        if self.pool is None:
            signal, valid = cases.x[:, None, :] + injected, cases.valid[:, None, :]
            valid = ops.repeat(valid, count, axis=1)
        else:
            records = ops.convert_to_tensor(np.asarray(self.pool, np.float32))
            signal = ops.take(records, ops.floor_divide(chosen, n), axis=0) + injected
            valid = ops.ones_like(signal)
        rows = standardise(ops.reshape(signal, (-1, n)), ops.reshape(valid, (-1, n)))
        return ops.reshape(self.victim.forward(rows), (-1, count, len(self.victim.classes)))

    def cross_entropy(self, p: Any, cases: Cases, iteration: Any) -> tuple[Any, Any]:
        """Mean cross-entropy toward the target and share of views that reach it, (B,) each.

        Untargeted cases count the probability of all classes but the source.
        """
        from keras import ops

        logits = self.views(p, cases, iteration)
        classes = logits.shape[-1]
        aimed = ops.cast(cases.target >= 0, "float32")[:, None, None]
        wanted = ops.one_hot(ops.maximum(cases.target, 0), classes, dtype="float32")[:, None, :]
        left = 1.0 - ops.one_hot(cases.source, classes, dtype="float32")[:, None, :]
        allowed = aimed * wanted + (1.0 - aimed) * left
        inside = ops.logsumexp(logits - 1e9 * (1.0 - allowed), axis=-1)
        entropy = ops.logsumexp(logits, axis=-1) - inside
        best = ops.argmax(logits, axis=-1)
        hit = ops.sum(ops.one_hot(best, classes, dtype="float32") * allowed, axis=-1)
        return ops.mean(entropy, axis=-1), ops.mean(hit, axis=-1)

    def __call__(self, delta: Any, cases: Cases, iteration: Any) -> Outcome:
        """Margins as in :class:`Objective`: the mean over the less favourable half of the views."""
        from keras import ops

        logits = self.views(delta, cases, iteration)
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
