"""``task=attack``: select, attack in chunks, verify, store, summarise, track."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import __version__, backend
from ecgadv.attacks.base import Attack, Problem
from ecgadv.attacks.engine import LARGEST_AUTO, Engine, choose_precision, chunk_size
from ecgadv.config import instantiate, signature
from ecgadv.errors import ConfigError, EcgadvError
from ecgadv.evaluate import curves
from ecgadv.evaluate import summary as summaries
from ecgadv.evaluate.cases import (
    CaseSpec,
    build_cases,
    check_band,
    enumerate_cases,
    evaluation_onsets,
    failed_rows,
    skipped_row,
    verified_rows,
)
from ecgadv.records.base import RecordSet
from ecgadv.records.opening import open_source
from ecgadv.records.selection import Selection, select
from ecgadv.report.progress import Progress
from ecgadv.report.write import write_report
from ecgadv.store import RunStore, part_files, success_pairs, write_csv
from ecgadv.store.files import read_object
from ecgadv.store.identity import refuse_other
from ecgadv.tasks import type2
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
from ecgadv.tasks.type2 import Injected
from ecgadv.threat.limits import mask_array
from ecgadv.threat.metrics import Quadratic
from ecgadv.threat.objectives import Objective
from ecgadv.tracking import NullTracker, is_uploaded, open_tracker, resolve_uri, ui_command
from ecgadv.victims.declared import declared
from ecgadv.victims.loading import WEIGHTS, Victim
from ecgadv.victims.pipeline import unflatten

ATTACK_VERSION = "1"
"""Part of a run's identity; changes with anything that changes what an attack finds."""

VERSIONED = ("ecgadv", "hydra-core", "mlflow", "numpy", "scipy")


@dataclass(frozen=True)
class Setup:
    """Everything an attack run is made of, instantiated."""

    records: RecordSet
    victim: Victim
    metric: Quadratic
    attack: Attack
    shifts: int
    local: bool
    injected: Injected | None = None
    mask: np.ndarray | None = None

    def objective(self, victim: Victim, size: int) -> Objective:
        """What the attack optimises, on the victim or on a twin of it in another precision.

        With ``size`` cases at once, injected signals are seen in so many turns that a gradient
        needs no more memory than the largest chunk of single readings.
        """
        if self.injected is not None:
            at_once = max(1, LARGEST_AUTO[backend.device_kind()] // size)
            return self.injected.objective(victim, self.records, at_once)
        return Objective(victim, self.shifts)


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
    metric: Quadratic = instantiate(cfg["metric"])
    attack: Attack = instantiate(cfg["attack"])
    selection = Selection.from_config(cfg["selection"], declared(cfg["victim"]).classes)
    identity = {"signature": signature(cfg), "attack_version": ATTACK_VERSION}
    refuse_other(folder, **identity)
    records = open_records(cfg)
    identity |= {"data": records.digest}
    refuse_other(folder, **identity)
    victim = None
    if cfg.get("shard") or not _is_done(cfg, folder, part_files(folder), records):
        victim = open_victim(cfg, records)
        check_band(attack, victim)
        identity |= {"victim": victim.sha256}
        refuse_other(folder, **identity)
    return partial(_run, cfg, folder, metric, attack, selection, records, victim, identity)


def _run(
    cfg: Mapping[str, Any],
    folder: Path,
    metric: Quadratic,
    attack: Attack,
    selection: Selection,
    records: RecordSet,
    victim: Victim | None,
    identity: Mapping[str, str],
) -> int:
    """The run itself, on what :func:`prepare` opened."""
    share = tuple(int(v) for v in str(cfg["shard"]).split("/")) if cfg.get("shard") else (1, 1)
    is_split = bool(cfg.get("shard"))
    with RunStore(folder) as store:
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
            victim = victim or open_victim(cfg, records)
            check_band(attack, victim)
            store.write_json("config.json", dict(cfg))
            tracker.start(dataset)
            predictions, frequencies = predict_all(cfg, victim, records, folder)
            show_frequencies(frequencies, records.name, victim.name)
            unread = unusable_records(records, predictions)
            injected, mask, correct = None, None, predictions.correct
            if cfg["threat_model"] == "type2":
                injected = type2.prepare(
                    cfg, victim, records, predictions.correct, predictions.split, attack
                )
                correct = injected.eligible
            else:
                mask, correct = _editable(attack, victim, records, correct)
            rows = select(records, correct, selection, predictions.split)
            chosen = [(records.ids[i], int(i), str(records.labels[i])) for i in rows]
            specs = enumerate_cases(chosen, str(cfg["target"]), victim.classes)
            shifts = int(cfg["eot"].get("shifts") or 0) if cfg["eot"]["name"] == "shift" else 0
            if injected is not None:
                shifts = injected.shifts
                if injected.training:
                    together = cfg["universal"] == "all"
                    specs = type2.universal_specs(injected, specs, records, together)
            setup = Setup(
                records, victim, metric.over(victim.leads), attack, shifts,
                cfg["deployment"] == "local", injected, mask,
            )  # fmt: skip
            plan = _plan(cfg, store, setup, specs)
            known = {s.case_id: s for s in specs}
            chunks = [[known[name] for name in chunk] for chunk in plan["chunks"]]
            splits = dict(zip(records.ids, predictions.split.tolist(), strict=True))
            mine = range(share[0] - 1, len(chunks), share[1])
            _attack_all(cfg, store, setup, chunks, mine, splits, tracker, str(plan["precision"]))
            if is_split:
                return _end_share(cfg, store, chunks, mine)
            gone = [skipped_row(i, "", reason) for i, reason in records.skipped.items()]
            gone += [skipped_row(i, label, reason) for i, label, reason in unread]
            if gone and len(chunks) not in store.parts:
                store.add(len(chunks), gone, np.zeros((0, *victim.shape)), np.zeros(0))
            store.export(final=True)
            result = _summary(cfg, store, setup, plan)
            result |= _robustness(store, setup, folder)
            if injected is not None:
                result["evaluation"] = type2.export(
                    folder, store.rows(), victim.classes, cfg["seed"]
                )
                result["training_records"] = {
                    c: [records.ids[i] for i in rows] for c, rows in injected.training.items()
                }
            store.write_json("summary.json", result)
            write_report(folder)
            _show(cfg, folder, result)
    return 1 if result["n_failed"] else 0


def _editable(
    attack: Attack, victim: Victim, records: RecordSet, correct: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """The samples that ``attack.mask`` leaves, None for all; and the records that have one of them.

    Raises:
        ConfigError: no record reaches that far, or the spans hold no frequency of the band.
    """
    spans = getattr(attack, "mask", None)
    if not isinstance(attack, Attack):
        return None, correct
    if spans is None:
        attack.limits.check_span(victim.n)
        return None, correct
    mask = mask_array(spans, victim.n, victim.fs)
    attack.limits.check_span(int(mask.sum()))
    first = int(mask.argmax())
    if not getattr(attack, "perturb_padding", False):
        correct = np.asarray(correct, bool) & (records.lengths > first)
    if not correct.any():
        raise ConfigError(
            f"attack.mask={spans}: no correctly classified record lasts {first / victim.fs:g} s"
        )
    return mask, correct


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
    reading = declared(cfg["victim"])
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
    path = Path(node["path"]) if node.get("path") else WEIGHTS / f"{node.get('name')}.npz"
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    size = chunk_size(setup.victim, cfg["batch_size"], len(specs), max(1, setup.shifts))
    names = [s.case_id for s in specs]
    precision, why = choose_precision(
        cfg["precision"], setup.attack, setup.victim, len(specs), size
    )
    if cfg["precision"] == "auto" and not store.parts:
        say(f"precision: {precision} ({why})")
    plan = store.plan(
        {
            "identity": {
                "signature": signature(cfg),
                "attack_version": ATTACK_VERSION,
                "data": setup.records.digest,
                "victim": setup.victim.sha256,
            },
            "victim_file": _victim_file(cfg),
            "precision": precision,
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


def _attack_all(
    cfg: Mapping[str, Any],
    store: RunStore,
    setup: Setup,
    chunks: list[list[CaseSpec]],
    mine: range,
    splits: Mapping[str, str],
    tracker: NullTracker,
    precision: str,
) -> None:
    """Attack every chunk of ``mine`` that is not stored yet."""
    total = sum(len(chunks[number]) for number in mine)
    width = max(len(chunk) for chunk in chunks)
    done = [row for row in store.rows() if row["status"] != "skipped"]
    cases, won = len(done), sum(bool(row["success"]) for row in done)
    if cases:
        say(f"resuming: {cases} of {total} cases are stored")
    if all(number in store.parts for number in mine):
        return
    exact = setup.objective(setup.victim, width)
    coarse = setup.objective(setup.victim.with_precision(precision), width)
    problem = Problem(coarse, setup.metric, cfg["seed"], exact if precision != "float32" else None)
    engine = Engine(setup.attack, problem)
    with Progress(f"{setup.attack.name} {setup.metric.name}", total) as progress:
        for number in mine:
            if number in store.parts:
                continue
            chunk = chunks[number]

            def tick(finished: int, step: int, base: int = cases, hits: int = won) -> None:
                rate = f"success {hits}/{base}" if base else "first batch"
                progress.update(min(base + finished, total), f"{rate}, step {step}")

            rows, delta, scale = _attack_chunk(cfg, setup, engine, chunk, width, splits, tick)
            store.add(number, rows, delta, scale)
            store.export()
            cases += len(rows)
            won += sum(bool(row["success"]) for row in rows)
            progress.update(cases, f"success {won}/{cases}")
            tracker.progress(cases, {"cases_done": cases, "success_so_far": won / cases})


def _attack_chunk(
    cfg: Mapping[str, Any],
    setup: Setup,
    engine: Engine,
    chunk: list[CaseSpec],
    width: int,
    splits: Mapping[str, str],
    tick: Any,
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Rows, perturbations and mV scales of one chunk; an error becomes rows that say so."""
    # A short last chunk is filled up with its last case, so that no new shape is compiled.
    padded = chunk + [chunk[-1]] * (width - len(chunk))
    batch = setup.records.batch([s.position for s in padded], setup.victim.n, setup.victim.over)
    padding = bool(getattr(setup.attack, "perturb_padding", False))
    injected = setup.injected
    cases = build_cases(
        padded, batch, setup.victim, seed=cfg["seed"], perturb_padding=padding,
        shifts=0 if injected else setup.shifts,
        mask=injected.free if injected else setup.mask,
    )  # fmt: skip
    if injected:
        cases = injected.with_views(cases, padded, cfg["seed"], setup.attack.max_steps())
    started = time.perf_counter()
    try:
        solution = engine.run(cases, tick)
        onsets = None
        if setup.local and not injected:
            onsets = evaluation_onsets(cases, padded, cfg["seed"], cfg["evaluation"]["shifts"])
        seconds = (time.perf_counter() - started) * len(padded) / len(chunk)
        if injected:
            rows = type2.finished_rows(
                cfg, setup.victim, setup.records, injected, chunk, batch, cases, solution,
                [splits[s.record] for s in chunk], time.perf_counter() - started,
            )  # fmt: skip
            return rows, solution.delta[: len(chunk)], batch.scale_mv[: len(chunk)]
        rows = verified_rows(
            setup.victim, padded, batch, cases, solution,
            [splits[s.record] for s in padded], seconds, onsets,
        )  # fmt: skip
    except (EcgadvError, MemoryError, ArithmeticError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        say(f"error: {chunk[0].case_id} and {len(chunk) - 1} more cases failed: {reason}")
        return failed_rows(chunk, reason), np.zeros((0, *setup.victim.shape)), np.zeros(0)
    count = len(chunk)
    delta = unflatten(solution.delta[:count], setup.victim.leads)
    return rows[:count], delta, batch.scale_mv[:count]


def _summary(
    cfg: Mapping[str, Any], store: RunStore, setup: Setup, plan: Mapping[str, Any]
) -> dict[str, Any]:
    rows = store.rows()
    versions = {"python": platform.python_version(), **backend.versions()}
    for package in VERSIONED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = __version__ if package == "ecgadv" else "absent"
    return summaries.summarise(rows, success_pairs(rows)) | {
        "config_signature": signature(cfg),
        "victim": {"name": setup.victim.name, "sha256": setup.victim.sha256},
        "input": setup.victim.reading,
        "data": {"name": setup.records.name, "digest": setup.records.digest},
        "metric": setup.metric.name,
        "attack": setup.attack.name,
        "batch_size": plan["size"],
        "precision": plan["precision"],
        "versions": versions,
    }


def _robustness(store: RunStore, setup: Setup, folder: Path) -> dict[str, Any]:
    """The victim's robustness, and its curves as ``robustness.csv``; {} for fixed budgets."""
    column = curves.COLUMN_OF_METRIC.get(setup.metric.name)
    if column is None or not setup.attack.minimises:
        return {}
    rows = store.rows()
    steps = curves.curve_rows(curves.pair_curves(rows, column))
    write_csv(folder / "robustness.csv", steps, curves.CURVE_COLUMNS)
    return {"robustness": curves.robustness(rows, column)}
