"""What another victim, or the same one elsewhere, says of perturbations that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.errors import VictimError
from ecgadv.evaluate.cases import ANY
from ecgadv.evaluate.statistics import wilson
from ecgadv.evaluate.summary import rate
from ecgadv.evaluate.verification import verify
from ecgadv.records.base import class_name
from ecgadv.threat.objectives import UNTARGETED
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten


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
        x: (M, n), or (M, n, leads), standardised records.
        delta: (M, n), or (M, n, leads), perturbations.
        lengths: (M,) samples that std(·) counts.
        onsets: (M, S) random onsets of a local deployment; None reads the recordings as stored.

    Returns:
        Rows of ``evaluation.csv``, with ``success`` and ``status`` added. ``success_rate`` is the
        share of onsets at which the target is predicted (untargeted: a class other than the
        source); ``success`` also asks for the margin of every success; ``clean`` is what the
        victim says of the record as it was.

    Raises:
        VictimError: the victim reads another length, or does not know a class.
    """
    if delta.shape[1:] != victim.shape:
        raise VictimError(
            f"victim {victim.name} reads {' x '.join(map(str, victim.shape))} samples, the "
            f"perturbations have {' x '.join(map(str, delta.shape[1:]))}"
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
    verdict = verify(victim, flatten(x), flatten(delta), lengths, source, target, onsets=onsets)
    before = victim.logits(victim.standardise_array(flatten(x), lengths)).argmax(1)
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
                "clean": victim.classes[int(before[i])],
                "left": int(verdict.predicted[i]) != int(source[i]),
                "status": "ok",
            }
        )
    return rows


def transfer_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What transfers, over the cases whose record the judging victim reads correctly itself.

    A record that it misreads anyway says nothing of the perturbation.

    Args:
        rows: see :func:`rejudge`.

    Returns:
        ``to_target`` and ``off_source`` (any other class is read): ``n, n_success, n_records,
        success_rate, ci95_records, ci95`` each.
    """
    known = [row for row in rows if row["clean"] == row["source"]]
    left = [{**row, "success": row["left"]} for row in known]
    return {"to_target": rate(known), "off_source": rate(left)}


def transfer_matrix(summaries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A table of who fools whom, from ``summary.json`` of ``task=evaluate`` runs.

    Args:
        summaries: any number, in any order; each names the victim that judged, and the one that
            the perturbations were made on.

    Returns:
        Rows of cells, the heading first: a row for each victim of the attack, a column for each
        that judged; ``k/n (low to high %)`` to the target, cases added up over runs.
    """
    cells: dict[tuple[str, str], list[int]] = {}
    makers: list[str] = []
    judges: list[str] = []
    for summary in summaries:
        maker = str((summary["evaluated"].get("victim") or {}).get("name", "?"))
        judge = str(summary["victim"]["name"])
        makers += [maker] if maker not in makers else []
        judges += [judge] if judge not in judges else []
        counted = summary["transfer"]["to_target"]
        cell = cells.setdefault((maker, judge), [0, 0])
        cell[0] += int(counted["n_success"])
        cell[1] += int(counted["n"])
    order = [*makers, *(name for name in judges if name not in makers)]
    columns = [name for name in order if name in judges]
    table = [["made on \\ judged by", *columns]]
    for maker in makers:
        row = [maker]
        for judge in columns:
            k, n = cells.get((maker, judge), (0, 0))
            low, high = wilson(k, n)
            row.append(f"{k}/{n} ({100 * low:.1f} to {100 * high:.1f} %)" if n else "–")
        table.append(row)
    return table
