"""``task=evaluate``: judge the stored perturbations of an earlier run, with any victim.

With ``evaluate.study`` the answers of a reading study are scored instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.errors import ConfigError, StoreError, VictimError
from ecgadv.evaluate.summary import rate
from ecgadv.evaluate.tables import Row
from ecgadv.evaluate.transfer import check_fit, rejudge, transfer_rates
from ecgadv.evaluate.trials import trial_table
from ecgadv.making import TARGET
from ecgadv.reader_study import commands as reader_study
from ecgadv.report.tables import span, success_table
from ecgadv.signature import signature
from ecgadv.store import Run, RunStore, load_run, success_pairs, write_csv
from ecgadv.store.identity import IDENTITY, refuse_other
from ecgadv.store.reading import AGAIN
from ecgadv.study.setting import Setting
from ecgadv.tasks import type2
from ecgadv.tasks.common import only_standardised, open_victim, say, use_caches
from ecgadv.tracking import open_tracker
from ecgadv.victims.loading import Victim


def run(cfg: Mapping[str, Any], folder: Path) -> int:
    """Judge again: writes ``evaluation.csv`` and ``summary.json``; the earlier run stays as it is.

    The recordings are those of the earlier run, read from its own data source; victim, deployment
    and ``evaluation`` are those of this configuration. Injected signals are tried under the
    earlier run's deployment, on records that they were made from and on others.

    Args:
        cfg: composed and validated configuration.
        folder: this evaluation's own folder.

    Returns:
        0.

    Raises:
        ConfigError: ``evaluate.run`` is not given.
        StoreError: it holds no perturbations, or its recordings have changed.
        VictimError: the victim does not fit the perturbations.
    """
    return prepare(cfg, folder)()


def prepare(cfg: Mapping[str, Any], folder: Path) -> Callable[[], int]:
    """Open the earlier run and the victim; nothing is written before what is returned is called."""
    wanted = cfg.get("evaluate") or {}
    if wanted.get("study"):
        return partial(reader_study.evaluate, cfg, folder)
    named = wanted.get("run")
    if not named:
        raise ConfigError("task=evaluate needs evaluate.run=FOLDER (of an attack run)")
    use_caches(cfg)
    earlier = load_run(named)
    if not len(earlier.case_ids):
        raise StoreError(f"{named}: holds no perturbations to evaluate")
    known = set(earlier.cases["case_id"])
    lost = next((str(name) for name in earlier.case_ids if str(name) not in known), None)
    if lost is not None:
        raise StoreError(f"{named}: cases.csv lacks case {lost} of perturbations.npz; {AGAIN}")
    usual = {"name": "exclusive"}
    made, asked = (c.get("goal") or usual for c in (earlier.config, cfg))
    plain = [{k: v for k, v in goal.items() if k != TARGET} for goal in (made, asked)]
    if plain[0] != plain[1]:
        if plain[1] != usual:
            told = f"goal={asked['name']}: the perturbations were made for goal={made['name']}"
            same = " with other options" if asked["name"] == made["name"] else ""
            raise ConfigError(f"{told}{same} and are judged by that")
        say(f"note: judged by goal={made['name']}, for which the perturbations were made")
        cfg = {**cfg, "goal": made}
    victim = open_victim(cfg)
    same_input(earlier, victim)
    # Read here: recordings that have changed are refused before anything is written.
    _ = earlier.lengths
    refuse_other(folder, **_identity(cfg, victim))
    return partial(_run, cfg, folder, earlier, victim)


def _identity(cfg: Mapping[str, Any], victim: Victim) -> dict[str, str]:
    return {"signature": signature(cfg), "victim": victim.sha256}


def _run(cfg: Mapping[str, Any], folder: Path, earlier: Run, victim: Victim) -> int:
    with RunStore(folder) as store:
        tracker = open_tracker(
            cfg["tracking"], cfg, folder, root=Path(cfg["paths"]["root"]), signature=signature(cfg)
        )
        with tracker:
            store.write_json("config.json", dict(cfg))
            store.write_json(IDENTITY, _identity(cfg, victim))
            data = earlier.summary.get("data", {})
            tracker.start({"name": data.get("name", ""), "digest": data.get("digest", ""),
                           "records": len(set(earlier.cases["record"])),
                           "root": earlier.config.get("data", {}).get("root")})  # fmt: skip
            if earlier.config.get("threat_model") == "type2":
                rows, more = type2.try_again(cfg, earlier, victim, folder)
            else:
                table, rows = judge_run(cfg, earlier, victim)
                more = {"transfer": transfer_rates(rows)}
                write_csv(folder / "evaluation.csv", table, trial_table(victim.classes))
            result = _summary(cfg, earlier, victim, rows) | more
            store.write_json("summary.json", result)
            _show(rows)
            for line in type2.lines(more.get("evaluation", {})):
                print(line)
            was = earlier.summary.get("success_rate")
            known = "" if was is None else f"; {was:.1%} in the run itself"
            if result["n_skipped"]:
                say(
                    f"note: {result['n_skipped']} cases are left out: {victim.name} does not read "
                    "their record as its source before anything is added"
                )
            say(
                f"success {result['n_success']}/{result['n_cases']} "
                f"({span(result['ci95_records'])} over records, Wilson {span(result['ci95'])}) "
                f"by {victim.name}{known}"
            )
            if "transfer" in more:
                known = more["transfer"]
                goal, off = known["to_target"], known["off_source"]
                say(
                    f"of {goal['n']} cases whose record {victim.name} reads correctly itself: "
                    f"{goal['n_success']} to the target, {off['n_success']} to any other class"
                )
            print(f"results: {folder}")
    return 0


def same_input(earlier: Run, victim: Victim) -> None:
    """Raise :class:`VictimError` where the perturbations mean something else to the victim."""
    said = earlier.summary.get("input") or {}
    for key, own in (("fs", victim.fs), ("standardise", victim.over)):
        if said.get(key, own) != own:
            raise VictimError(
                f"victim {victim.name}: its {key} is {own}, the run's perturbations were made for "
                f"{key}={said[key]}"
            )
    if earlier.config.get("threat_model") == "type2":
        only_standardised(victim)
    stored = earlier.cases[earlier.cases["case_id"].isin([str(c) for c in earlier.case_ids])]
    check_fit(victim, stored.to_dict("records"), earlier.delta.shape[1:])


def judge_run(cfg: Mapping[str, Any], earlier: Run, victim: Victim) -> tuple[list[Row], list[Row]]:
    """Rows of ``evaluation.csv`` for every stored perturbation of a run, and what rates count."""
    table = earlier.cases.set_index("case_id")
    names = [str(name) for name in earlier.case_ids]
    cases = [{"case_id": name, **table.loc[name].to_dict()} for name in names]
    # Where the padding was perturbed too, it is part of the recording that is judged.
    padded = bool((earlier.config.get("attack") or {}).get("perturb_padding"))
    lengths = np.full(len(names), earlier.delta.shape[1]) if padded else earlier.lengths
    asked = {**cfg, "threat_model": "type1", "goal": earlier.config.get("goal")}
    judge = Setting.of(asked, victim.fs).judge(victim)
    return rejudge(judge, cases, earlier.x, earlier.delta, lengths)


def _summary(
    cfg: Mapping[str, Any], earlier: Run, victim: Victim, rows: list[Row]
) -> dict[str, Any]:
    counted = [row for row in rows if row["status"] != "skipped"]
    overall = rate(counted)
    return {
        "n_cases": overall["n"],
        "n_success": overall["n_success"],
        "success_rate": overall["success_rate"],
        "ci95": overall["ci95"],
        "ci95_records": overall["ci95_records"],
        "n_records": overall["n_records"],
        "n_skipped": len(rows) - len(counted),
        "target_rate": float(np.mean([r["success_rate"] for r in counted])) if counted else None,
        "pairs": {pair: rate(group) for pair, group in success_pairs(rows).items()},
        "deployment": cfg["deployment"],
        "n_shifts": rows[0]["n_shifts"],
        "config_signature": signature(cfg),
        "victim": {"name": victim.name, "sha256": victim.sha256},
        "evaluated": {
            "folder": str(earlier.folder),
            "config_signature": earlier.summary.get("config_signature"),
            "victim": earlier.summary.get("victim"),
        },
    }


def _show(rows: list[Row]) -> None:
    import pandas as pd
    from rich.console import Console

    Console().print(success_table(pd.DataFrame(rows)))
