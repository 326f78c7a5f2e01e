"""One injected signal for many recordings: made from the first of them, tried on the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.study.judge import pooled, untried
from ecgadv.study.study import Chunk, Outcome, Study
from ecgadv.threat.goals import UNTARGETED, Aim


class Universal:
    """Signals for several recordings together, one a target; the study's channel gets the pool.

    Args:
        study: of injected signals.
        x: (B, leads·n) standardised records that fill an input, lead after lead.
        count: K, the first ones of ``x``, which the signals are made from; the others are what
            they are tried on.
        target: (T,) class indices.

    Raises:
        ConfigError: the records that a signal is made from are of several classes, so that there is
            none for an untargeted one to leave.
    """

    def __init__(self, study: Study, x: np.ndarray, count: int, target: np.ndarray) -> None:
        self.study, self.count = study, count
        spans = np.full(len(x), study.victim.n)
        still = [np.zeros(1, np.int32)] * len(x)
        self.clean = np.concatenate(study.judge.clean(x, spans, still))
        read = self.clean.argmax(1).tolist()
        self.read, self.others = read[count:], x[count:]
        self.known = set(read[:count])
        if len(self.known) > 1 and UNTARGETED in target:
            names = ", ".join(study.victim.classes[k] for k in sorted(self.known))
            raise ConfigError(
                f"universal={count} target=untargeted: the records are read as {names}; one signal "
                "for several classes needs a target"
            )
        # Toward a target it does not matter which of several classes is left.
        self.source = read[0] if len(self.known) == 1 else 0
        self.target = target
        stands = [self._stand(self.clean[:count], t).all() for t in target.tolist()]
        self.live = np.flatnonzero(stands)
        study.channel = replace(study.channel, pool=x[:count])
        rows = len(self.live)
        self.chunk = Chunk(
            np.repeat(x[:1], rows, axis=0), np.full(rows, study.victim.n),
            np.full(rows, self.source), target[self.live], seen=np.tile([0, count], (rows, 1)),
        )  # fmt: skip

    def _stand(self, clean: np.ndarray, target: int) -> np.ndarray:
        """Which recordings leave something to attack, from their logits: (R, C) -> (R,) bool."""
        aim = Aim(clean.argmax(1), np.full(len(clean), target), clean)
        return self.study.judge.goal.stands(clean, aim)

    def judged(self, found: list[Outcome]) -> Outcome:
        """What came of all targets, from what came of the chunks of those that have a case."""
        names, total = self.study.victim.classes, len(self.target)
        width = self.study.victim.width
        none, counted = untried(len(names)), np.zeros(total, np.int64)
        whole = Outcome(
            np.zeros((total, width), np.float32), np.full(total, self.source), counted,
            counted.copy(), [none] * total, ["skipped"] * total, [""] * total,
        )  # fmt: skip
        assert whole.trials is not None
        if not np.isfinite(self.clean[: self.count]).all():
            why = "the victim's outputs on a record that it is made from are not finite"
        else:
            why = "a record that it is made from is read as the target before anything is added"
        whole.message[:] = [why] * total
        rows = [(one, k) for one in found for k in range(len(one.delta))]
        for i, (one, k) in zip(self.live.tolist(), rows, strict=True):
            whole.delta[i] = one.delta[k]
            whole.gradients[i], whole.forwards[i] = one.gradients[k], one.forwards[k]
            whole.status[i], whole.message[i] = one.status[k], one.message[k]
            if one.status[k] != "ok":
                continue
            target = int(self.target[i])
            stand = self._stand(self.clean[self.count :], target)
            trials = [
                self.study.judge.on_other(self.chunk.x[0], target, one.delta[k], other, source)
                for other, source, case in zip(self.others, self.read, stand, strict=True)
                if case and (len(self.known) > 1 or source in self.known)
            ]
            if trials:
                whole.trials[i] = pooled(trials)
            else:
                whole.message[i] = "tried on no record: x has none but those that it is made from"
        return whole
