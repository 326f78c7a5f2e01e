"""What another victim, or the same one elsewhere, says of perturbations that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.errors import VictimError
from ecgadv.evaluate.cases import ANY
from ecgadv.evaluate.verification import verify
from ecgadv.records.base import class_name
from ecgadv.threat.objectives import UNTARGETED
from ecgadv.victims.loading import Victim


def evaluation_columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Columns of ``evaluation.csv``; one of hits for each class."""
    return (
        "perturbation_case", "victim_record", "source", "target", "same_record", "n_shifts",
        *(f"hits_{class_name(c)}" for c in classes), "success_rate",
    )  # fmt: skip


def onsets_of(case_ids: Sequence[str], lengths: np.ndarray, seed: int, count: int) -> np.ndarray:
    """(M, count) uniform onsets, each case from its own name, so that no subset changes them."""
    rows = []
    for name, length in zip(case_ids, lengths, strict=True):
        stream = np.random.default_rng([seed, *name.encode()])
        rows.append(stream.integers(0, int(length), count))
    return np.stack(rows) if rows else np.zeros((0, count), dtype=np.int64)


def rejudge(
    victim: Victim,
    cases: Sequence[Mapping[str, Any]],
    x: np.ndarray,
    delta: np.ndarray,
    lengths: np.ndarray,
    *,
    onsets: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Judge stored perturbations, each on the record that it was made from.

    Args:
        victim: who judges.
        cases: M rows of ``cases.csv`` (``case_id``, ``record``, ``source``, ``target``).
        x: (M, n) standardised records.
        delta: (M, n) perturbations.
        lengths: (M,) samples that std(·) counts.
        onsets: (M, S) random onsets of a local deployment; None reads the recordings as stored.

    Returns:
        Rows of ``evaluation.csv``, with ``success`` and ``status`` added. ``success_rate`` is the
        share of onsets at which the target is predicted (untargeted: a class other than the
        source); ``success`` also asks for the margin of every success.

    Raises:
        VictimError: the victim reads another length, or does not know a class.
    """
    if delta.shape[1:] != (victim.n,):
        raise VictimError(
            f"victim {victim.name} reads {victim.n} samples, the perturbations have "
            f"{' x '.join(map(str, delta.shape[1:]))}"
        )
    named = {row["source"] for row in cases} | {row["target"] for row in cases} - {ANY}
    if not named <= set(victim.classes):
        raise VictimError(
            f"victim {victim.name}: the run attacks class {min(named - set(victim.classes))}, its "
            f"classes are {', '.join(victim.classes)}"
        )
    source = np.array([victim.classes.index(row["source"]) for row in cases])
    target = np.array(
        [UNTARGETED if r["target"] == ANY else victim.classes.index(r["target"]) for r in cases]
    )
    verdict = verify(victim, x, delta, lengths, source, target, onsets=onsets)
    shifts = 1 if onsets is None else onsets.shape[1]
    rows = []
    for i, case in enumerate(cases):
        hits = verdict.hits[i]
        on_target = shifts - hits[source[i]] if target[i] == UNTARGETED else hits[target[i]]
        rows.append(
            {
                "perturbation_case": case["case_id"],
                "victim_record": case["record"],
                "source": case["source"],
                "target": case["target"],
                "same_record": True,
                "n_shifts": shifts,
                **{
                    f"hits_{class_name(c)}": int(h)
                    for c, h in zip(victim.classes, hits, strict=True)
                },
                "success_rate": float(on_target / shifts),
                "success": bool(verdict.success[i]),
                "status": "ok",
            }
        )
    return rows
