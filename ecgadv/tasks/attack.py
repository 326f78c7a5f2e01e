"""``task=attack``: select, attack in chunks, verify, store, summarise, track."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import __version__, backend
from ecgadv.attacks.base import Attack
from ecgadv.errors import ConfigError
from ecgadv.evaluate import curves
from ecgadv.evaluate import summary as summaries
from ecgadv.evaluate.cases import skipped_record
from ecgadv.evaluate.distances import Distance
from ecgadv.evaluate.tables import Table
from ecgadv.making import TARGET, instantiate, lookup
from ecgadv.records.base import RecordSet
from ecgadv.records.opening import open_source
from ecgadv.records.selection import Selection, select
from ecgadv.report.write import write_report
from ecgadv.signature import signature
from ecgadv.store import RunStore, part_files, success_pairs, write_csv
from ecgadv.store.columns import case_table
from ecgadv.store.files import read_object
from ecgadv.store.identity import refuse_other
from ecgadv.study.audience import audience, universal_specs
from ecgadv.study.cases import CaseSpec, enumerate_cases
from ecgadv.study.setting import open_study
from ecgadv.study.study import Study
from ecgadv.tasks import type2
from ecgadv.tasks.chunks import Setup, attack_all
from ecgadv.tasks.common import (
    open_records,
    open_victim,
    predict_all,
    say,
    show_frequencies,
    show_results,
    unusable_records,
    use_caches,
)
from ecgadv.tracking import NullTracker, is_uploaded, open_tracker, resolve_uri, ui_command
from ecgadv.victims.declared import KEYS, Reading, declared
from ecgadv.victims.loading import WEIGHTS

ATTACK_VERSION = "3"
"""Part of a run's identity; changes with anything that changes what an attack finds."""

VERSIONED = ("ecgadv", "hydra-core", "mlflow", "numpy", "scipy")


def run(cfg: Mapping[str, Any], folder: Path) -> int:
    """Run or resume an attack, or one share of it.

    Args:
        cfg: composed and validated configuration. With ``shard`` I/N, every N-th chunk from the
            I-th is attacked, and nothing is summarised or tracked.
        folder: the run's folder, or that of the share.

    Returns:
        0 where every case ran to its end, 1 where some case failed with an error.
    """
    return prepare(cfg, folder)()


def prepare(cfg: Mapping[str, Any], folder: Path) -> Callable[[], int]:
    """Open everything that the run reads; nothing is written before what is returned is called.

    Raises:
        RefusedError: the folder holds results of other data, another victim or version.
        EcgadvError: an option, the data or the victim cannot be used.
    """
    attack: Attack = instantiate(cfg["attack"])
    table = case_table(Distance.of(instantiate(cfg["metric"])))
    selection = Selection.from_config(cfg["selection"], declared(cfg["victim"]).classes)
    identity = {"signature": signature(cfg), "attack_version": ATTACK_VERSION}
    refuse_other(folder, **identity)
    records = open_records(cfg)
    identity |= {"data": records.digest}
    refuse_other(folder, **identity)
    study = None
    if cfg.get("shard") or not _is_done(cfg, folder, part_files(folder), records):
        study = open_study(cfg, open_victim(cfg, records), attack)
        identity |= {"victim": study.victim.sha256}
        refuse_other(folder, **identity)
    return partial(_run, cfg, folder, table, attack, selection, records, study, identity)


def _run(
    cfg: Mapping[str, Any],
    folder: Path,
    table: Table,
    attack: Attack,
    selection: Selection,
    records: RecordSet,
    study: Study | None,
    identity: Mapping[str, str],
) -> int:
    """The run itself, on what :func:`prepare` opened."""
    share = tuple(int(v) for v in str(cfg["shard"]).split("/")) if cfg.get("shard") else (1, 1)
    is_split = bool(cfg.get("shard"))
    with RunStore(folder, table) as store:
        refuse_other(folder, **identity)
        tracker = NullTracker()
        if not is_split:
            tracker = open_tracker(
                cfg["tracking"], cfg, folder, root=Path(cfg["paths"]["root"]),
                signature=signature(cfg),
            )  # fmt: skip
        dataset = {
            "name": records.name, "digest": records.digest, "records": len(records),
            "root": cfg["data"].get("root"),
        }  # fmt: skip
        if not is_split and _is_done(cfg, folder, store.parts, records) and store.is_exported():
            return _show_done(cfg, store, tracker, dataset)
        with tracker:
            study = study or open_study(cfg, open_victim(cfg, records), attack)
            victim = study.victim
            store.write_json("config.json", dict(cfg))
            tracker.start(dataset)
            predictions, frequencies = predict_all(cfg, victim, records, folder)
            show_frequencies(frequencies, records.name, victim.name)
            unread = unusable_records(records, predictions, victim.n)
            heard, correct = None, predictions.correct
            if study.channel.injected:
                type2.check(cfg)
                heard = audience(
                    cfg, victim, records, correct, predictions.split,
                    int(getattr(attack, "train_records", 0)),
                )  # fmt: skip
                correct = heard.eligible
            else:
                correct = _reaching(study, records, correct)
            rows = select(records, correct, selection, predictions.split, victim.n)
            chosen = [(records.ids[i], int(i), str(records.labels[i])) for i in rows]
            specs = enumerate_cases(chosen, str(cfg["target"]), victim.classes)
            if heard is not None and heard.training:
                together = cfg["universal"] == "all"
                specs = universal_specs(heard, specs, records, together)
                study.channel = replace(study.channel, pool=heard.pool(records, victim))
            splits = dict(zip(records.ids, predictions.split.tolist(), strict=True))
            setup = Setup(records, study, splits, heard)
            plan = _plan(cfg, store, setup, specs)
            known = {s.case_id: s for s in specs}
            chunks = [[known[name] for name in chunk] for chunk in plan["chunks"]]
            mine = range(share[0] - 1, len(chunks), share[1])
            attack_all(store, setup, chunks, mine, tracker, str(plan["precision"]))
            if is_split:
                return _end_share(cfg, store, chunks, mine)
            gone = [skipped_record(i, "", reason) for i, reason in records.skipped.items()]
            gone += [skipped_record(i, label, reason) for i, label, reason in unread]
            if gone and len(chunks) not in store.parts:
                store.add(len(chunks), gone, np.zeros((0, *victim.shape)), np.zeros(0))
            store.export(final=True)
            result = _summary(cfg, store, setup, plan)
            result |= _robustness(store, setup, folder)
            if study.judge.channel.moving:
                result["evaluation"] = type2.export(
                    folder, store.beside(), victim.classes, cfg["seed"]
                )
            if heard is not None:
                result["training_records"] = {
                    c: [records.ids[i] for i in rows] for c, rows in heard.training.items()
                }
            store.write_json("summary.json", result)
            write_report(folder)
            _show(cfg, folder, result)
    return 1 if result["n_failed"] else 0


def _reaching(study: Study, records: RecordSet, correct: np.ndarray) -> np.ndarray:
    """The correctly classified records that last until the attack's mask.

    Raises:
        ConfigError: none does.
    """
    if not study.first:
        return correct
    if not study.padding:
        correct = np.asarray(correct, bool) & (records.lengths > study.first)
    if not correct.any():
        seconds = study.first / study.victim.fs
        raise ConfigError(
            f"attack.mask={getattr(study.attack, 'mask', None)}: no correctly classified record "
            f"lasts {seconds:g} s"
        )
    return correct


def _end_share(
    cfg: Mapping[str, Any], store: RunStore, chunks: list[list[CaseSpec]], mine: range
) -> int:
    """Say what this share did; the run's own folder is written when all shares are there."""
    store.export(final=True)
    rows = store.rows()
    say(
        f"shard {cfg['shard']}: {len(rows)} cases in {len(mine)} of {len(chunks)} batches are done"
        + ("" if len(mine) else "; a smaller batch_size cuts the run finer")
    )
    print(f"shard: {store.folder}")
    return int(any(row["status"] == "failed" for row in rows))


def _show(cfg: Mapping[str, Any], folder: Path, result: Mapping[str, Any]) -> None:
    show_results(folder)
    for line in type2.lines(result.get("evaluation", {})):
        print(line)
    if cfg["tracking"]["name"] != "none":
        uri = resolve_uri(cfg["tracking"].get("uri"), Path(cfg["paths"]["root"]))
        print(f"compare runs: {ui_command(uri)}")


def _is_done(
    cfg: Mapping[str, Any], folder: Path, parts: Iterable[int], records: RecordSet
) -> bool:
    """Whether this very run is finished, told without loading the victim."""
    plan, result = read_object(folder / "plan.json"), read_object(folder / "summary.json")
    files = ("cases.csv", "perturbations.npz", "predictions.csv", "config.json", "report.html")
    wanted = {
        "signature": signature(cfg),
        "attack_version": ATTACK_VERSION,
        "data": records.digest,
        "victim": result.get("victim", {}).get("sha256"),
    }
    digest = _victim_file(cfg)
    return (
        plan.get("identity") == wanted
        and digest is not None
        and plan.get("victim_file") == digest
        and result.get("n_failed") == 0
        and all((folder / name).is_file() for name in files)
        and set(parts) >= set(range(len(plan["chunks"])))
    )


def known_identity(cfg: Mapping[str, Any]) -> dict[str, str | None]:
    """What can be told of a run's identity without its victim; for a sweep before it starts."""
    use_caches(cfg)
    reading = declared(cfg["victim"]) if cfg["task"] != "train" else Reading()
    records = open_source(cfg["data"], instantiate, reading.fs, reading.classes)
    return {
        "attack_version": ATTACK_VERSION,
        "data": records.digest,
        "victim_file": _victim_file(cfg),
    }


def _victim_file(cfg: Mapping[str, Any]) -> str | None:
    """Digest of the victim's file, ``None`` where it comes from elsewhere (a user's own code)."""
    node = cfg["victim"]
    if not str(node.get("_target_", "")).startswith("ecgadv.") or node.get("name") == "torch":
        return None
    defence = str(lookup(cfg, f"defence.{TARGET}") or "ecgadv.")
    if node.get("preprocess") or not defence.startswith("ecgadv."):
        return None  # What a function does is known when it is imported.
    path = Path(node["path"]) if node.get("path") else WEIGHTS / f"{node.get('name')}.npz"
    if not path.is_file():
        return None
    digest = hashlib.sha256(path.read_bytes())
    if node.get("path"):
        # The card beside the file says what its outputs mean, and what it was trained on.
        reading = declared(node)
        told = [getattr(reading, key) for key in KEYS]
        digest.update(json.dumps([told, (reading.card or {}).get("data")]).encode())
    return digest.hexdigest()


def _show_done(
    cfg: Mapping[str, Any], store: RunStore, tracker: NullTracker, dataset: Mapping[str, Any]
) -> int:
    """Print the tables of a finished run; upload it where the tracking store lacks it."""
    say("nothing to do: every case is stored (resume=false starts afresh)")
    if not is_uploaded(cfg["tracking"], store.folder, Path(cfg["paths"]["root"])):
        with tracker:
            tracker.start(dataset)
    _show(cfg, store.folder, store.read_json("summary.json"))
    return 0


def _plan(
    cfg: Mapping[str, Any], store: RunStore, setup: Setup, specs: list[CaseSpec]
) -> dict[str, Any]:
    """Cut the work into chunks of near-equal size; a resumed run gets the first start's cut."""
    victim, total = setup.study.victim, len(specs)
    size = setup.study.size(cfg["batch_size"], total)
    names = [s.case_id for s in specs]
    precision, why = setup.study.precision(cfg["precision"], total, size)
    gradients = f"{precision} ({why}), of {setup.study.differentiated}"
    if not store.parts:
        say(f"gradients: {gradients}")
    plan = store.plan(
        {
            "identity": {
                "signature": signature(cfg),
                "attack_version": ATTACK_VERSION,
                "data": setup.records.digest,
                "victim": victim.sha256,
            },
            "victim_file": _victim_file(cfg),
            "precision": precision,
            "gradients": gradients,
            "size": size,
            "chunks": [names[i : i + size] for i in range(0, len(names), size)],
        }
    )
    for file in store.set_aside:
        say(f"note: {file} was damaged: set aside, its cases are attacked again")
    again = store.forget_failed()
    if again:
        say(f"note: {again} cases had failed with an error: attacked again")
    return plan


def _summary(
    cfg: Mapping[str, Any], store: RunStore, setup: Setup, plan: Mapping[str, Any]
) -> dict[str, Any]:
    rows, distance = store.rows(), Distance.of(setup.study.metric)
    versions = {"python": platform.python_version(), **backend.versions()}
    for package in VERSIONED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = __version__ if package == "ecgadv" else "absent"
    return summaries.summarise(rows, success_pairs(rows), distance.column) | {
        "config_signature": signature(cfg),
        "victim": {"name": setup.study.victim.name, "sha256": setup.study.victim.sha256},
        "input": setup.study.victim.reading,
        "data": {"name": setup.records.name, "digest": setup.records.digest},
        "metric": distance.metric,
        "distance": distance.told(),
        "attack": setup.study.attack.name,
        "batch_size": plan["size"],
        "precision": plan["precision"],
        "gradients": plan["gradients"],
        "versions": versions,
    }


def _robustness(store: RunStore, setup: Setup, folder: Path) -> dict[str, Any]:
    """The victim's robustness, and its curves as ``robustness.csv``; {} for fixed budgets."""
    distance, rows = Distance.of(setup.study.metric), store.rows()
    # Cases of an earlier version may lack the column of a distance that is not a usual one.
    lacking = any(row["success"] and row.get(distance.column) is None for row in rows)
    if lacking or not setup.study.attack.minimises:
        return {}
    steps = curves.curve_rows(curves.pair_curves(rows, distance.column))
    write_csv(folder / "robustness.csv", steps, curves.CURVES)
    return {"robustness": curves.robustness(rows, distance)}
