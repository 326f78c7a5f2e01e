"""What ``task=attack`` does differently under ``threat_model=type2``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import ConfigError, DataError, StoreError
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
from ecgadv.records.base import RecordSet, class_name
from ecgadv.records.selection import Selection, select
from ecgadv.report.progress import Progress
from ecgadv.store import Run, write_csv
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Judge, Trial, pooled, untried
from ecgadv.study.study import Injected, Outcome
from ecgadv.tasks.common import open_records, say
from ecgadv.threat.channel import Channel
from ecgadv.threat.objectives import UNTARGETED
from ecgadv.threat.transforms import FrontEnd, window_samples
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten

HISTORY_POINTS = 100
"""Points of the loss curve that are kept of a case."""


@dataclass(frozen=True)
class Audience:
    """The recordings that injected signals are made from, and those that they are tried on.

    Attributes:
        eligible: (R,) bool, records that may be attacked or tried: classified correctly, and at
            least as long as a classifier input.
        training: class letter -> positions of the records of a universal perturbation; {} without.
        most: other records of each class that a signal is tried on; None for all.
    """

    eligible: np.ndarray
    training: dict[str, np.ndarray]
    most: int | None = None

    def trained_on(self, spec: CaseSpec) -> np.ndarray:
        """Positions of the records that a universal perturbation is made from."""
        if spec.source == ANY:
            return np.concatenate(list(self.training.values()))
        return self.training[spec.source]

    def pool(self, records: RecordSet, victim: Victim) -> np.ndarray | None:
        """(K, leads·n) standardised records of universal training, class after class."""
        if not self.training:
            return None
        rows = np.concatenate(list(self.training.values()))
        return flatten(records.batch(rows, victim.n, victim.over).x)

    def seen(self, specs: Sequence[CaseSpec]) -> np.ndarray | None:
        """(B, 2) first record and number of records of the pool that each case is made from."""
        if not self.training:
            return None
        starts, first = {ANY: 0}, 0
        for letter, rows in self.training.items():
            starts[letter], first = first, first + len(rows)
        return np.array([(starts[s.source], len(self.trained_on(s))) for s in specs])


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


def injection(cfg: Mapping[str, Any], victim: Victim) -> Injected:
    """What the attacker can do and believes, from a configuration.

    Raises:
        ConfigError: the window does not fit.
    """
    window = window_samples(cfg["window"], victim.n, victim.fs)
    local = cfg["deployment"] == "local"
    return Injected(window, FrontEnd.from_config(cfg["filter"], victim.fs) if local else FrontEnd())


def deployment(cfg: Mapping[str, Any], victim: Victim) -> Judge:
    """The deployment that judges, of either threat model, from a configuration."""
    evaluation, local = cfg["evaluation"], cfg["deployment"] == "local"
    channel = Channel(moving=local, leads=victim.leads)
    if cfg["threat_model"] == "type2":
        node = {**evaluation, "name": evaluation["filter"]}
        channel = Channel(
            injected=True, moving=True, window=window_samples(cfg["window"], victim.n, victim.fs),
            front_end=FrontEnd.from_config(node, victim.fs) if local else FrontEnd(),
            order=evaluation["order"], leads=victim.leads,
        )  # fmt: skip
    return Judge(victim, channel, int(evaluation["shifts"]), int(cfg["seed"]))


def audience(
    cfg: Mapping[str, Any],
    victim: Victim,
    records: RecordSet,
    correct: np.ndarray,
    split: np.ndarray,
    train_records: int = 0,
) -> Audience:
    """The recordings of a run.

    Raises:
        ConfigError: no record is long enough, or fewer than a universal perturbation needs.
    """
    check(cfg)
    n = victim.n
    eligible = np.asarray(correct, bool) & (records.lengths >= n)
    if not eligible.any():
        raise ConfigError(
            f"threat_model=type2: no record of {records.name} that lasts at least "
            f"{n / victim.fs:g} s is classified correctly"
        )
    training = {}
    if cfg["universal"]:
        training = _training_records(
            cfg, records, victim.classes, eligible, split, train_records, n
        )
    return Audience(eligible, training, cfg["evaluation"]["max_records"])


def _training_records(
    cfg: Mapping[str, Any],
    records: RecordSet,
    classes: Sequence[str],
    eligible: np.ndarray,
    split: np.ndarray,
    count: int,
    n: int,
) -> dict[str, np.ndarray]:
    """The first ``count`` records of each source class that has a case.

    With ``universal=all`` so many in all, shared out evenly over the classes.
    """
    selection = replace(Selection.from_config(cfg["selection"], classes), per_class=count)
    rows = select(records, eligible, selection, split, n)
    found = {str(c) for c in records.labels[rows]}
    letters = [c for c in classes if c in found and class_name(c) != cfg["target"]]
    share = dict.fromkeys(letters, count)
    if cfg["universal"] == "all":
        share = {c: (count + len(letters) - 1 - i) // len(letters) for i, c in enumerate(letters)}
    training = {}
    for letter, wanted in share.items():
        mine = rows[records.labels[rows] == letter][:wanted]
        total = int((eligible & (records.labels == letter)).sum())
        if len(mine) < wanted or total <= wanted:
            raise ConfigError(
                f"attack.train_records={count}: only {min(len(mine), total - 1)} correctly "
                f"classified records of class {class_name(letter)} that fill an input can be used"
            )
        if wanted:
            training[letter] = mine
    return training


def universal_specs(
    heard: Audience, specs: Sequence[CaseSpec], records: RecordSet, together: bool = False
) -> list[CaseSpec]:
    """One case a pair of classes instead of one a record; named after the first training record.

    With ``universal=all`` one a target class, its source ``any``.
    """
    pairs = dict.fromkeys((ANY if together else s.source, s.target) for s in specs)
    out = []
    for source, target in pairs:
        spec = CaseSpec("", 0, source, target)
        rows = heard.trained_on(spec)
        first = int(rows[0])
        out.append(CaseSpec(records.ids[first], first, source, target, universal=len(rows)))
    return out


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
    for position in _others(heard, records, spec):
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
    judge = deployment(settings, victim)
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


def _others(heard: Audience, records: RecordSet, spec: CaseSpec) -> list[int]:
    """Unseen records: of the perturbation's class; of a universal one's, the other classes too."""
    seen = {spec.position}
    if spec.universal:
        seen = {int(i) for i in heard.trained_on(spec)}
    classes = [spec.source] if spec.source != ANY else []
    if spec.universal:
        classes += [
            c
            for c in dict.fromkeys(str(label) for label in records.labels)
            if c not in (spec.source, spec.target)
        ]
    chosen = []
    for letter in classes:
        rows = np.flatnonzero(heard.eligible & (records.labels == letter))
        chosen += [int(i) for i in rows if int(i) not in seen][: heard.most]
    return chosen


def export(folder: Path, tables: Beside, classes: Sequence[str], seed: int) -> dict[str, Any]:
    """Write ``evaluation.csv``, ``shifts.csv`` and ``history.csv``; the summary's part of them."""
    write_csv(folder / "evaluation.csv", tables.evaluation, trial_table(classes))
    write_csv(folder / "shifts.csv", tables.shifts, SHIFTS)
    if tables.history:
        write_csv(folder / "history.csv", tables.history, HISTORY)
    return summarise_evaluation(tables.evaluation, seed) if tables.evaluation else {}
