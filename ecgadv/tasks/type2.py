"""What ``task=attack`` does differently under ``threat_model=type2``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import DataError, StoreError
from ecgadv.evaluate.predictions import predict
from ecgadv.evaluate.tables import Row
from ecgadv.evaluate.trials import (
    HISTORY,
    SHIFTS,
    Beside,
    shift_rows,
    summarise_evaluation,
    trial_row,
    trial_table,
    verdict_row,
)
from ecgadv.records.base import RecordSet
from ecgadv.report.progress import Progress
from ecgadv.store import Run, write_csv
from ecgadv.study.audience import Audience, audience
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Judge, Trial, pooled, untried
from ecgadv.study.setting import Setting
from ecgadv.study.study import Outcome
from ecgadv.tasks.common import open_records, say
from ecgadv.threat.goals import UNTARGETED
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten

HISTORY_POINTS = 100
"""Points of the loss curve that are kept of a case."""


def check(cfg: Mapping[str, Any]) -> None:
    """Say what a combination of options means where that may surprise."""
    if cfg["deployment"] == "cloud":
        if cfg["filter"]["name"] != "none" or cfg["evaluation"]["filter"] != "none":
            say(
                "note: deployment=cloud classifies what was stored unfiltered, so filter and "
                "evaluation.filter do not apply"
            )
    elif cfg["eot"]["name"] == "none":
        say(
            "note: eot=none: the attack takes the onset for known (0), the evaluation draws it at "
            "random all the same"
        )


def tried(
    judge: Judge,
    records: RecordSet,
    heard: Audience,
    spec: CaseSpec,
    p: np.ndarray,
    own: Trial | None,
) -> tuple[Beside, Trial]:
    """One perturbation on the recordings that it is for.

    Args:
        judge: the deployment.
        records: of the data source.
        heard: which of them count.
        spec: the case.
        p: (n,) the perturbation.
        own: the verdict on its own record; None of a universal one.

    Returns:
        Its rows of ``evaluation.csv`` and ``shifts.csv``, and its verdict: on its own record, of a
        universal one on the unseen records of the class it was made from.
    """
    victim, classes = judge.victim, judge.victim.classes
    target = UNTARGETED if spec.target == ANY else classes.index(spec.target)
    found = [] if own is None else [(spec.record, spec.source, True, own)]
    x = flatten(records.batch([spec.position], victim.n, victim.over).x)[0]
    for position in heard.others(records, spec):
        other = flatten(records.batch([position], victim.n, victim.over).x)[0]
        letter = str(records.labels[position])
        trial = judge.on_other(x, target, p, other, classes.index(letter))
        found.append((records.ids[position], letter, False, trial))
    rows = [trial_row(classes, spec, *one) for one in found]
    judged = [one for one in found if one[2] or (spec.universal and spec.source in (one[1], ANY))]
    shifts = [row for one in judged for row in shift_rows(classes, spec, one[0], one[3])]
    verdict = pooled([one[3] for one in judged]) if judged else untried(len(classes))
    return Beside(rows, shifts), verdict


def signal_cells(p: np.ndarray, free: np.ndarray, scale: np.ndarray, spec: CaseSpec) -> Row:
    """Cells of ``cases.csv`` that only injected signals have.

    Args:
        p: (leads·n,) the signal, lead after lead.
        free: (n,) 1 where it may differ from 0.
        scale: mV per standardised unit, of several leads (leads,).
        spec: the case.
    """
    scales = np.asarray(scale, np.float64).reshape(-1, 1)
    signal = p.astype(np.float64).reshape(len(scales), -1)
    samples = len(scales) * free.sum()
    cells: Row = {
        "mean_power": float((signal**2).sum() / samples),
        "rms_mv": float(((signal * scales) ** 2).sum() / samples) ** 0.5,
        "peak_mv": float(np.abs(signal * scales).max()),
        "n_records": max(1, spec.universal),
    }
    if spec.universal:
        cells["message"] = f"universal: made from {spec.universal} records"
    return cells


def learning(spec: CaseSpec, outcome: Outcome, row: int) -> Beside:
    """The loss curve of one case of a chunk, where the attack keeps one."""
    if outcome.history is None:
        return Beside()
    curve = outcome.history[row]
    picks = np.unique(np.linspace(0, len(curve) - 1, HISTORY_POINTS).astype(int))
    points = [(int(k) + 1, round(float(curve[k]), 6)) for k in picks]
    name = spec.case_id
    return Beside(history=[{"case_id": name, "iteration": k, "loss": v} for k, v in points])


def lines(evaluation: Mapping[str, Any]) -> list[str]:
    """The summary's evaluation for a person, a line a kind of record."""
    kinds = {
        "same_record": "on the record itself",
        "other_records": "on other records of the class",
        "other_classes": "on records of other classes",
    }
    out = []
    for kind, words in kinds.items():
        if kind in evaluation:
            total = evaluation[kind]["all"]
            if not total["n_trials"]:
                continue
            known = total["ci95_records"]
            shown = (
                f"{100 * known[0]:.1f} to {100 * known[1]:.1f} %, bootstrap over records"
                if known
                else "too few records for an interval"
            )
            out.append(
                f"{words}: {100 * total['success_rate']:.1f} % of {total['n_trials']} readings "
                f"reach the target ({shown})"
            )
    return out


def try_again(
    cfg: Mapping[str, Any], earlier: Run, victim: Victim, folder: Path
) -> tuple[list[Row], dict[str, Any]]:
    """Try the stored perturbations of a run under ``cfg``'s ``evaluation``, ``seed`` and victim.

    Returns:
        A row per perturbation as a count of successes needs it, and the summary's further part;
        ``evaluation.csv`` and ``shifts.csv`` are written.

    Raises:
        StoreError: the data source lacks a record of the run.
        ConfigError: no record can be tried.
    """
    settings = {
        **earlier.config, "evaluation": cfg["evaluation"], "paths": cfg["paths"],
        "seed": cfg["seed"],
    }  # fmt: skip
    records = open_records(settings)
    known = predict(victim, records)
    judge = Setting.of(settings, victim.fs).judge(victim)
    check(settings)
    # The records of universal training are read from the run, not chosen anew.
    heard = audience({**settings, "universal": False}, victim, records, known.correct, known.split)
    trained = earlier.summary.get("training_records") or {}
    try:
        training = {
            letter: np.array([records.index(name) for name in names])
            for letter, names in trained.items()
        }
        heard = replace(heard, training=training)
        cases = earlier.cases.set_index("case_id")
        rows: list[Row] = []
        tables: list[Beside] = []
        with Progress("trying perturbations", len(earlier.delta)) as progress:
            for case_id, p in zip(earlier.case_ids, earlier.delta, strict=True):
                case = cases.loc[str(case_id)]
                name, source, target = (str(case[k]) for k in ("record", "source", "target"))
                spec = CaseSpec(name, records.index(name), source, target)
                own = None
                if training:
                    spec = replace(spec, universal=len(heard.trained_on(spec)))
                else:
                    own = _own_trial(judge, records, spec, p)
                signal = flatten(p[None])[0]
                table, verdict = tried(judge, records, heard, spec, signal, own)
                tables.append(table)
                rows.append(verdict_row(spec, verdict, judge.shifts))
                progress.update(len(rows))
    except DataError as error:
        raise StoreError(f"{earlier.folder}: {error}") from None
    more = {"evaluation": export(folder, Beside.joined(tables), victim.classes, cfg["seed"])}
    return rows, more | {"deployment": settings["deployment"]}


def _own_trial(judge: Judge, records: RecordSet, spec: CaseSpec, p: np.ndarray) -> Trial:
    victim = judge.victim
    batch = records.batch([spec.position], victim.n, victim.over)
    target = UNTARGETED if spec.target == ANY else victim.classes.index(spec.target)
    (trial,) = judge.trials(
        flatten(batch.x), flatten(p[None]), batch.lengths,
        np.array([victim.classes.index(spec.source)]), np.array([target]),
    )  # fmt: skip
    return trial


def export(folder: Path, tables: Beside, classes: Sequence[str], seed: int) -> dict[str, Any]:
    """Write ``evaluation.csv``, ``shifts.csv`` and ``history.csv``; the summary's part of them."""
    write_csv(folder / "evaluation.csv", tables.evaluation, trial_table(classes))
    write_csv(folder / "shifts.csv", tables.shifts, SHIFTS)
    if tables.history:
        write_csv(folder / "history.csv", tables.history, HISTORY)
    return summarise_evaluation(tables.evaluation, seed) if tables.evaluation else {}
