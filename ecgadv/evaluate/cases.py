"""From what came of a chunk to rows of ``cases.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.evaluate.distances import sizes
from ecgadv.evaluate.perceptibility import cells, perceptibility
from ecgadv.records.base import Batch
from ecgadv.study.cases import CaseSpec
from ecgadv.study.judge import Trial
from ecgadv.study.study import Outcome
from ecgadv.threat.metrics import Quadratic
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten


def case_rows(
    victim: Victim,
    metric: Quadratic,
    specs: Sequence[CaseSpec],
    batch: Batch,
    outcome: Outcome,
    splits: Sequence[str],
    verdicts: Sequence[Trial | None],
    extras: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Rows of ``cases.csv``, judged by the deployment; the solver's own account is unused.

    Args:
        victim: the classifier.
        metric: of the run, as it measures the victim's leads.
        specs: the cases.
        batch: a row per case.
        outcome: of the same cases.
        splits: ``train`` or ``heldout`` of each record.
        verdicts: the trial that decides each case.
        extras: further cells of each.
    """
    x = flatten(batch.x)
    delta = outcome.delta
    # Where δ overflowed there are no distances: its row says that it failed.
    sound = np.where(np.isfinite(delta).all(axis=1)[:, None], delta, 0)
    measured = sizes(sound, x, batch.lengths, victim.leads, metric)
    by_lead = (len(x), victim.leads, victim.n)
    seen = perceptibility(
        sound.reshape(by_lead), x.reshape(by_lead), batch.lengths, batch.scale_mv, victim.fs
    )
    done = max(1, sum(status != "skipped" for status in outcome.status))
    rows = []
    for i, spec in enumerate(specs):
        if outcome.status[i] != "ok":
            rows.append(left_out(spec, outcome.status[i], outcome.message[i], splits[i]))
            continue
        verdict = verdicts[i]
        assert verdict is not None
        rows.append(
            {
                "case_id": spec.case_id,
                "record": spec.record,
                "source": spec.source,
                "target": spec.target,
                "predicted": victim.classes[verdict.predicted],
                "success": verdict.success,
                "p_target": verdict.p_target,
                "margin": verdict.margin,
                **{name: float(values[i]) for name, values in measured.items()},
                "n_gradients": int(outcome.gradients[i]),
                "n_forwards": int(outcome.forwards[i]),
                "seconds": round(outcome.seconds / done, 4),
                "status": "ok",
                "message": "",
                "split": splits[i],
                **cells(seen, i),
                **extras[i],
            }
        )
    return rows


def left_out(spec: CaseSpec, status: str, message: str, split: str = "") -> dict[str, Any]:
    """The row of a case that failed or does not exist."""
    return {
        "case_id": spec.case_id,
        "record": spec.record,
        "source": spec.source,
        "target": spec.target,
        "success": False,
        "status": status,
        "message": message,
        "split": split,
    }


def skipped_record(record: str, label: str, message: str) -> dict[str, Any]:
    """The row of a record that could not be used."""
    return {
        "case_id": record,
        "record": record,
        "source": label,
        "target": "",
        "success": False,
        "status": "skipped",
        "message": message,
    }
