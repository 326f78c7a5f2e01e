"""What another victim, or the same one elsewhere, says of perturbations that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.errors import VictimError
from ecgadv.evaluate.statistics import wilson
from ecgadv.evaluate.summary import rate
from ecgadv.evaluate.tables import Row
from ecgadv.evaluate.trials import trial_row, verdict_row
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Judge
from ecgadv.threat.goals import UNTARGETED
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten


def check_fit(victim: Victim, cases: Sequence[Mapping[str, Any]], shape: tuple[int, ...]) -> None:
    """Whether a victim can judge perturbations of a shape, and knows the classes of their cases.

    Raises:
        VictimError: it reads another length, or does not know a class.
    """
    if tuple(shape) != victim.shape:
        raise VictimError(
            f"victim {victim.name} reads {' x '.join(map(str, victim.shape))} samples, the "
            f"perturbations have {' x '.join(map(str, shape))}"
        )
    named = ({row["source"] for row in cases} | {row["target"] for row in cases}) - {ANY}
    if not named <= set(victim.classes):
        raise VictimError(
            f"victim {victim.name}: the run attacks class {min(named - set(victim.classes))}, its "
            f"classes are {', '.join(victim.classes)}"
        )


def rejudge(
    judge: Judge,
    cases: Sequence[Mapping[str, Any]],
    x: np.ndarray,
    delta: np.ndarray,
    spans: np.ndarray,
) -> tuple[list[Row], list[Row]]:
    """Judge stored perturbations, each on the record that it was made from.

    Args:
        judge: the deployment, with its victim.
        cases: M rows of ``cases.csv`` (``case_id``, ``record``, ``source``, ``target``).
        x: (M, n), or (M, n, leads), standardised records.
        delta: (M, n), or (M, n, leads), perturbations.
        spans: (M,) samples that std(·) counts.

    Returns:
        Rows of ``evaluation.csv``, and of each what rates count:
        :func:`ecgadv.evaluate.trials.verdict_row` with ``clean``, what the deployment reads of the
        unperturbed record (``skipped`` where that is not its source), and ``left``, whether any
        other class is read of the perturbed one, at half of the onsets that count.

    Raises:
        VictimError: the victim reads another length, or does not know a class.
    """
    victim = judge.victim
    check_fit(victim, cases, delta.shape[1:])
    source = np.array([victim.classes.index(row["source"]) for row in cases])
    target = np.array(
        [UNTARGETED if r["target"] == ANY else victim.classes.index(r["target"]) for r in cases]
    )
    trials = judge.trials(flatten(x), flatten(delta), np.asarray(spans), source, target)
    table, verdicts = [], []
    for case, trial in zip(cases, trials, strict=True):
        spec = CaseSpec(str(case["record"]), 0, str(case["source"]), str(case["target"]))
        named = {"case_id": str(case["case_id"])}
        row = trial_row(victim.classes, spec, spec.record, spec.source, True, trial)
        table.append(row | {"perturbation_case": named["case_id"]})
        seen = {"clean": victim.classes[int(trial.clean.argmax())], "left": trial.left}
        verdicts.append(verdict_row(spec, trial, judge.shifts) | named | seen)
    return table, verdicts


def transfer_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What transfers, over the cases whose record the judging victim reads correctly itself.

    A record that it misreads anyway says nothing of the perturbation.

    Args:
        rows: verdicts, see :func:`rejudge`.

    Returns:
        ``to_target`` and ``off_source`` (any other class is read): ``n, n_success, n_records,
        success_rate, ci95_records, ci95`` each.
    """
    known = [row for row in rows if row["status"] == "ok"]
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
