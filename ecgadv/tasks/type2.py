"""What ``task=attack`` does differently under ``threat_model=type2``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.attacks.base import Attack
from ecgadv.attacks.engine import Solution
from ecgadv.attacks.eot import EOT, paper_shifts
from ecgadv.config import instantiate
from ecgadv.errors import ConfigError, DataError, StoreError
from ecgadv.evaluate.cases import ANY, CaseSpec, case_seed, verified_rows
from ecgadv.evaluate.predictions import predict
from ecgadv.evaluate.type2 import (
    SHIFT_COLUMNS,
    Protocol,
    stack_verdicts,
    summarise_evaluation,
    trial_columns,
    try_records,
    verdict_of,
)
from ecgadv.records.base import Batch, RecordSet, class_name
from ecgadv.records.selection import Selection, select
from ecgadv.report.progress import Progress
from ecgadv.store import Run, write_csv
from ecgadv.tasks.common import open_records, say
from ecgadv.threat.injection import Injection
from ecgadv.threat.limits import mask_array
from ecgadv.threat.objectives import Cases
from ecgadv.threat.transforms import FrontEnd, draw_views, window_samples
from ecgadv.victims.loading import Victim

MOST_ROUNDS = 1024
"""Sets of views drawn for a case at most; a longer attack goes round them."""

HISTORY_POINTS = 100
"""Points of the loss curve that are kept of a case."""


@dataclass(frozen=True)
class Injected:
    """A Type II run's settings.

    Attributes:
        window: samples that a perturbation lasts.
        free: (n,) 1 on the samples of them that may differ from 0, at onset 0.
        front_end: F as the attacker models it.
        protocol: how the results are tried.
        shifts: views an iteration; 0 where the attacker takes the onset for known.
        eligible: (R,) bool, records that may be attacked or tried: classified correctly, and at
            least as long as a classifier input.
        training: class letter -> positions of the records of a universal perturbation; {} without.
    """

    window: int
    free: np.ndarray
    front_end: FrontEnd
    protocol: Protocol
    shifts: int
    eligible: np.ndarray
    training: dict[str, np.ndarray]

    def objective(self, victim: Victim, records: RecordSet, at_once: int | None) -> Injection:
        """The attack's view of the victim, through so many views of each case at a time."""
        pool = None
        if self.training:
            rows = np.concatenate(list(self.training.values()))
            pool = records.batch(rows, victim.n).x
        return Injection(victim, self.front_end, self.shifts, pool, at_once)

    def trained_on(self, spec: CaseSpec) -> np.ndarray:
        """Positions of the records that a universal perturbation is made from."""
        if spec.source == ANY:
            return np.concatenate(list(self.training.values()))
        return self.training[spec.source]

    def with_views(self, cases: Cases, specs: Sequence[CaseSpec], seed: int, rounds: int) -> Cases:
        """Cases with their random onsets, and records where those are drawn too."""
        n = cases.x.shape[1]
        seeds = [case_seed(seed, s.position, t) for s, t in zip(specs, cases.target, strict=True)]
        views, first = [], 0
        starts = {}
        for letter, rows in self.training.items():
            starts[letter], first = first, first + len(rows)
        for spec, own in zip(specs, seeds, strict=True):
            count = len(self.trained_on(spec)) if self.training else 1
            drawn = draw_views(
                [own], self.window, n, rounds=min(rounds, MOST_ROUNDS), shifts=self.shifts,
                records=count,
            )  # fmt: skip
            if self.training and not self.shifts:
                # Without shifts the records still take turns.
                drawn = drawn + n * (np.arange(drawn.shape[1])[None, :, None] % count)
            views.append(drawn[0] + n * starts.get(spec.source, 0))
        return cases._replace(onsets=np.stack(views).astype(np.int32))


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


def prepare(
    cfg: Mapping[str, Any],
    victim: Victim,
    records: RecordSet,
    correct: np.ndarray,
    split: np.ndarray,
    attack: Attack,
) -> Injected:
    """Settings of a run, from its configuration.

    Raises:
        ConfigError: the window does not fit, no record is long enough, or fewer than a universal
            perturbation needs.
    """
    check(cfg)
    n = victim.n
    window = window_samples(cfg["window"], n, victim.fs)
    free = (np.arange(n) < window).astype(np.float32)
    spans = getattr(attack, "mask", None)
    if spans is not None:
        free *= mask_array(spans, n, victim.fs)
        if not free.any():
            raise ConfigError(
                f"attack.mask={spans} window={cfg['window']}: have no sample in common"
            )
    attack.limits.check_span(int(free.sum()))
    local = cfg["deployment"] == "local"
    front_end = FrontEnd.from_config(cfg["filter"], victim.fs) if local else FrontEnd()
    evaluation = cfg["evaluation"]
    node = {**evaluation, "name": evaluation["filter"]}
    device = FrontEnd.from_config(node, victim.fs) if local else FrontEnd()
    protocol = Protocol(
        device, window, evaluation["shifts"], evaluation["order"], evaluation["max_records"]
    )
    shifts = int(cfg["eot"].get("shifts") or 0) if cfg["eot"]["name"] == "shift" else 0
    if shifts and isinstance(attack, EOT) and attack.schedule == "paper":
        shifts = paper_shifts(window, n)
    eligible = np.asarray(correct, bool) & (records.lengths >= n)
    if not eligible.any():
        raise ConfigError(
            f"threat_model=type2: no record of {records.name} that lasts at least "
            f"{n / victim.fs:g} s is classified correctly"
        )
    training = {}
    if cfg["universal"]:
        assert isinstance(attack, EOT)
        training = _training_records(
            cfg, records, victim.classes, eligible, split, attack.train_records
        )
    return Injected(window, free, front_end, protocol, shifts, eligible, training)


def _training_records(
    cfg: Mapping[str, Any],
    records: RecordSet,
    classes: Sequence[str],
    eligible: np.ndarray,
    split: np.ndarray,
    count: int,
) -> dict[str, np.ndarray]:
    """The first ``count`` records of each source class that has a case.

    With ``universal=all`` so many in all, shared out evenly over the classes.
    """
    selection = replace(Selection.from_config(cfg["selection"], classes), per_class=count)
    rows = select(records, eligible, selection, split)
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
                f"classified records of class {class_name(letter)} that last 30 s can be used"
            )
        if wanted:
            training[letter] = mine
    return training


def universal_specs(
    injected: Injected, specs: Sequence[CaseSpec], records: RecordSet, together: bool = False
) -> list[CaseSpec]:
    """One case a pair of classes instead of one a record; named after the first training record.

    With ``universal=all`` one a target class, its source ``any``.
    """
    pairs = dict.fromkeys((ANY if together else s.source, s.target) for s in specs)
    out = []
    for source, target in pairs:
        spec = CaseSpec("", 0, source, target)
        rows = injected.trained_on(spec)
        first = int(rows[0])
        out.append(CaseSpec(records.ids[first], first, source, target, universal=len(rows)))
    return out


def tried(
    victim: Victim,
    records: RecordSet,
    injected: Injected,
    spec: CaseSpec,
    p: np.ndarray,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One perturbation by the protocol.

    Returns:
        Its rows of ``evaluation.csv`` and ``shifts.csv`` under those names, and its verdict: on its
        own record, of a universal one on the unseen records of the class it was made from.
    """
    own = [] if spec.universal else [spec.position]
    others = _others(injected, records, spec)
    rows, logits, onsets = try_records(
        victim, injected.protocol, spec, p, records, [*own, *others], seed
    )
    judged = [i for i, r in enumerate(rows) if r["same_record"] or spec.universal]
    judged = [i for i in judged if spec.source in (rows[i]["source"], ANY)]
    verdict = verdict_of(victim, spec, logits[judged].reshape(-1, logits.shape[-1]))
    shifts = [
        {
            "perturbation_case": spec.case_id,
            "victim_record": rows[i]["victim_record"],
            "target": spec.target,
            "source": spec.source,
            "onset": int(onset),
            "predicted": victim.classes[int(k)],
        }
        for i in judged
        for onset, k in zip(onsets[i], logits[i].argmax(1), strict=True)
    ]
    return {"evaluation": rows, "shifts": shifts}, verdict


def finished_rows(
    cfg: Mapping[str, Any],
    victim: Victim,
    records: RecordSet,
    injected: Injected,
    specs: Sequence[CaseSpec],
    batch: Batch,
    cases: Cases,
    solution: Solution,
    splits: Sequence[str],
    seconds: float,
) -> list[dict[str, Any]]:
    """Rows of ``cases.csv`` by the protocol; each carries its rows of the other tables too."""
    parts, extras = [], []
    # A chunk that was filled up has more rows than cases.
    for spec, p, scale in zip(specs, solution.delta, batch.scale_mv, strict=False):
        tables, verdict = tried(victim, records, injected, spec, p, cfg["seed"])
        power = float((p.astype(np.float64) ** 2).sum() / injected.free.sum())
        parts.append(verdict)
        extras.append(
            tables
            | {
                "target_rate": verdict["rate"],
                "mean_power": power,
                "rms_mv": float(scale) * power**0.5,
                "peak_mv": float(scale) * float(np.abs(p).max()),
                "n_records": max(1, spec.universal),
            }
        )
    rows = verified_rows(
        victim, specs, batch, cases, solution, splits, seconds, verdict=stack_verdicts(parts)
    )
    for i, (row, extra) in enumerate(zip(rows, extras, strict=True)):
        row.update(extra)
        if solution.history is not None:
            curve = solution.history[i]
            picks = np.unique(np.linspace(0, len(curve) - 1, HISTORY_POINTS).astype(int))
            row["history"] = [[int(k) + 1, round(float(curve[k]), 6)] for k in picks]
        if specs[i].universal:
            row["message"] = f"universal: made from {specs[i].universal} records"
    return rows


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
            low, high = total["ci95_records"]
            out.append(
                f"{words}: {100 * total['success_rate']:.1f} % of {total['n_trials']} readings "
                f"reach the target ({100 * low:.1f} to {100 * high:.1f} %, bootstrap over records)"
            )
    return out


def try_again(
    cfg: Mapping[str, Any], earlier: Run, victim: Victim, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Try the stored perturbations of a run under ``cfg``'s ``evaluation``, ``seed`` and victim.

    Returns:
        A row per perturbation as a count of successes needs it, and the summary's further part;
        ``evaluation.csv`` and ``shifts.csv`` are written.

    Raises:
        StoreError: the data source lacks a record of the run.
        ConfigError: no record can be tried.
    """
    settings = {**earlier.config, "evaluation": cfg["evaluation"], "paths": cfg["paths"]}
    records = open_records(settings)
    known = predict(victim, records)
    # The records of universal training are read from the run, not chosen anew.
    injected = prepare(
        {**settings, "universal": False}, victim, records, known.correct, known.split,
        instantiate(settings["attack"]),
    )  # fmt: skip
    trained = earlier.summary.get("training_records") or {}
    try:
        training = {
            letter: np.array([records.index(name) for name in names])
            for letter, names in trained.items()
        }
        injected = replace(injected, training=training)
        table = earlier.cases.set_index("case_id")
        rows: list[dict[str, Any]] = []
        with Progress("trying perturbations", len(earlier.delta)) as progress:
            for case_id, p in zip(earlier.case_ids, earlier.delta, strict=True):
                case = table.loc[str(case_id)]
                source = str(case["source"])
                spec = CaseSpec(
                    str(case["record"]), records.index(str(case["record"])), source,
                    str(case["target"]),
                )  # fmt: skip
                if training:
                    spec = replace(spec, universal=len(injected.trained_on(spec)))
                tables, verdict = tried(victim, records, injected, spec, p, cfg["seed"])
                rows.append(
                    tables
                    | {
                        "case_id": spec.case_id, "record": spec.record, "source": source,
                        "target": spec.target, "success": verdict["success"], "status": "ok",
                        "success_rate": verdict["rate"], "n_shifts": injected.protocol.shifts,
                    }
                )  # fmt: skip
                progress.update(len(rows))
    except DataError as error:
        raise StoreError(f"{earlier.folder}: {error}") from None
    more = {"evaluation": export(folder, rows, victim.classes, cfg["seed"])}
    return rows, more | {"deployment": settings["deployment"]}


def _others(injected: Injected, records: RecordSet, spec: CaseSpec) -> list[int]:
    """Unseen records: of the perturbation's class; of a universal one's, the other classes too."""
    seen = {spec.position}
    if spec.universal:
        seen = {int(i) for i in injected.trained_on(spec)}
    classes = [spec.source] if spec.source != ANY else []
    if spec.universal:
        classes += [
            c
            for c in dict.fromkeys(str(label) for label in records.labels)
            if c not in (spec.source, spec.target)
        ]
    chosen = []
    for letter in classes:
        rows = np.flatnonzero(injected.eligible & (records.labels == letter))
        chosen += [int(i) for i in rows if int(i) not in seen][: injected.protocol.max_records]
    return chosen


def export(
    folder: Path, rows: Sequence[Mapping[str, Any]], classes: Sequence[str], seed: int
) -> dict[str, Any]:
    """Write ``evaluation.csv``, ``shifts.csv`` and ``history.csv``; the summary's part of them."""
    evaluation = [e for row in rows for e in row.get("evaluation", ())]
    write_csv(folder / "evaluation.csv", evaluation, trial_columns(classes))
    shifts = [s for row in rows for s in row.get("shifts", ())]
    write_csv(folder / "shifts.csv", shifts, SHIFT_COLUMNS)
    history = [
        {"case_id": row["case_id"], "iteration": k, "loss": value}
        for row in rows
        for k, value in row.get("history", ())
    ]
    if history:
        write_csv(folder / "history.csv", history, ("case_id", "iteration", "loss"))
    return summarise_evaluation(evaluation, seed) if evaluation else {}
