"""``task=benchmark``: attacks side by side on the same cases, in one process.

Every measurement is stored as it goes, so a killed benchmark goes on where it was. Peers are read
from ``benchmarks/peers.py`` of a checkout: nothing of them is needed to run anything else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.attacks.engine import chunk_size
from ecgadv.attacks.registry import make_attack
from ecgadv.errors import ConfigError, StoreError
from ecgadv.evaluate.benchmark import Compared, Row, compare, read_row, stored_rows
from ecgadv.evaluate.predictions import Predictions
from ecgadv.making import TARGET, instantiate
from ecgadv.records.base import RecordSet
from ecgadv.records.selection import Selection, select
from ecgadv.report import benchmark as report
from ecgadv.report import style
from ecgadv.report.progress import Progress
from ecgadv.signature import signature
from ecgadv.store import FolderLock, write_atomic
from ecgadv.store.identity import IDENTITY, refuse_other
from ecgadv.study.cases import CaseSpec, enumerate_cases
from ecgadv.study.setting import Setting
from ecgadv.study.study import Chunk, Solver, Study, class_indices
from ecgadv.tasks.common import open_records, open_victim, predict_all, say
from ecgadv.tasks.metering import Meter, machine
from ecgadv.tasks.methods import applies, known_metric, method_name, own_methods
from ecgadv.threat import goals, metrics
from ecgadv.threat.goals import Exclusive
from ecgadv.threat.metrics import Quadratic
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten
from ecgadv.victims.twin import twin_of

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers.py"


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    cfg: Mapping[str, Any]
    records: RecordSet
    victim: Victim
    predictions: Predictions
    folder: Path

    def specs(self, per_class: int) -> list[CaseSpec]:
        """The first correctly classified records of each class toward every target."""
        wanted = {**self.cfg["selection"], "per_class": per_class}
        chosen = Selection.from_config(wanted, self.victim.classes)
        known = self.predictions
        rows = select(self.records, known.correct, chosen, known.split, self.victim.n)
        named = [(self.records.ids[i], int(i), str(self.records.labels[i])) for i in rows]
        return enumerate_cases(named, str(self.cfg["target"]), self.victim.classes)

    def study(self, form: Quadratic, name: str, steps: int | str | None) -> Study:
        """An attack by name on this victim; the configuration's own with its options."""
        given = instantiate(self.cfg["attack"]) if name == self.cfg["attack"]["name"] else name
        attack = make_attack(given, **({} if steps is None else {"steps": steps}))
        setting = Setting(goal=goals.from_config(self.cfg.get("goal")), seed=int(self.cfg["seed"]))
        return setting.study(self.victim, form, attack)


@dataclasses.dataclass(frozen=True)
class Method:
    """What is measured: a study, of a peer with its own solver in the attack's place.

    Attributes:
        study: victim, judge and cases.
        precision: of the gradients.
        solve: a peer's; None for the study's own attack.
        identity: what tells one measurement from another.
    """

    study: Study
    precision: str
    solve: Solver | None
    identity: dict[str, Any]


def run(cfg: Mapping[str, Any], folder: Path) -> int:
    """Measure what is not measured yet, then write the tables and the figure.

    Args:
        cfg: composed and validated configuration.
        folder: the run's folder.

    Returns:
        0.

    Raises:
        ConfigError: a method is unknown, or there is nothing to compare.
    """
    return prepare(cfg, folder)()


def prepare(cfg: Mapping[str, Any], folder: Path) -> Callable[[], int]:
    """Open what is measured; nothing is written before what is returned is called."""
    options = cfg["benchmark"]
    own = own_methods(cfg)
    wanted = [*options["methods"], options["scaling_method"]]
    peers, missing = _peers(wanted, cfg["backend"], own)
    methods = [m for m in options["methods"] if m not in missing]
    for method, reason in missing.items():
        say(f"note: {method} is left out: {reason}")
    plan = [
        (metric, method)
        for metric in options["metrics"]
        for method in methods
        if applies(metric, method, own)
    ]
    if not plan:
        raise ConfigError("benchmark.methods: none of them can be measured here")
    records, victim = open_records(cfg), open_victim(cfg)
    mine = {"signature": signature(cfg), "data": records.digest, "victim": victim.sha256}
    refuse_other(folder, **mine)

    def work() -> int:
        with FolderLock(folder):
            write_atomic(folder / IDENTITY, json.dumps(mine))
            return _run(cfg, folder, records, victim, plan, peers, missing)

    return work


def _run(
    cfg: Mapping[str, Any],
    folder: Path,
    records: RecordSet,
    victim: Victim,
    plan: Sequence[tuple[str, str]],
    peers: Any,
    missing: Mapping[str, str],
) -> int:
    options = cfg["benchmark"]
    scaling = [] if options["scaling_method"] in missing else options["scaling"]
    rows_folder = Path(options["out"] or folder / "rows")
    try:
        rows_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{rows_folder}: cannot be written ({error.strerror})") from None
    predictions, _ = predict_all(cfg, victim, records, folder)
    bench = Bench(cfg, records, victim, predictions, rows_folder)
    write_atomic(folder / "config.json", json.dumps(cfg, indent=1, default=str))
    specs = bench.specs(options["per_class"])
    compared = [measure(bench, metric, method, specs, peers) for metric, method in plan]
    scaled = [
        measure(bench, metric, options["scaling_method"], bench.specs(per_class), peers)
        for metric in options["metrics"]
        for per_class in scaling
        if applies(metric, options["scaling_method"], own_methods(cfg))
    ]
    stored = stored_rows(rows_folder)
    known = [row for row in stored if any(_same_setting(row, other) for other in compared)]
    table = compare(compared, known)
    _write(folder, table, compare(scaled, known), missing, compared)
    return 0


def metric_options(cfg: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``metric``: options that change a metric's distances; {} of one of ours as it comes."""
    node = cfg["metric"]
    if name != node["name"]:
        return {}
    known = inspect.signature(metrics.METRICS[name]).parameters if name in metrics.METRICS else {}
    changed = {
        key: value
        for key, value in node.items()
        if key not in ("ridge", "name", TARGET)
        and (key not in known or value != known[key].default)
    }
    foreign = {} if known else {TARGET: node[TARGET]}
    return {"metric": foreign | changed} if foreign or changed else {}


def _peers(methods: Sequence[str], running: str, own: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """The module of the peers, and the methods that cannot be measured here with the reason."""
    wanted = {m: method_name(m)[0] for m in methods if method_name(m)[0] not in own}
    if not wanted:
        return None, {}
    if running != "tensorflow":
        return None, dict.fromkeys(wanted, f"needs backend=tensorflow, not {running}")
    if not PEERS.is_file():
        return None, dict.fromkeys(wanted, "peers are measured from a checkout, see benchmarks/")
    spec = importlib.util.spec_from_file_location("ecgadv_benchmark_peers", PEERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = {}
    for method, name in wanted.items():
        if name not in module.PEERS:
            known = ", ".join([*own, *module.PEERS])
            raise ConfigError(f"benchmark.methods={method}: unknown; there are {known}")
        reason = module.unavailable(name)
        if reason:
            missing[method] = reason
    return module, missing


def _method(
    bench: Bench, form: Quadratic, method: str, peers: Any, count: int, size: int
) -> Method:
    """A method by name."""
    name, steps = method_name(method)
    own = own_methods(bench.cfg)
    if name not in own:
        if bench.victim.leads > 1:
            raise ConfigError(
                f"benchmark.methods={method}: takes victims of one lead, {bench.victim.name} reads "
                f"{bench.victim.leads}"
            )
        if steps == "auto":
            raise ConfigError(f"benchmark.methods={method}: {name} takes a number of steps")
        made = peers.make(name, steps, bench.victim)
        study = bench.study(form, own[-1], None)
        if study.judge.goal != Exclusive():
            raise ConfigError(f"benchmark.methods={method}: knows goal=exclusive only")
        identity = {"version": peers.version(name), **metric_options(bench.cfg, form.name)}
        return Method(study, "float32", lambda cases, _: made(cases), identity)
    study = bench.study(form, name, steps)
    precision, why = study.precision(bench.cfg["precision"], count, size)
    source = Path(inspect.getfile(type(study.attack))).read_bytes()
    identity = {
        "options": repr(study.attack),
        "code": hashlib.sha256(source).hexdigest()[:16],
        "precision": precision,
        "folded": twin_of(bench.victim) is not bench.victim,
        "ridge": form.ridge if study.attack.ridged else None,
        **metric_options(bench.cfg, form.name),
        "seed": study.seed,
        **({} if study.judge.goal == Exclusive() else {"goal": repr(study.judge.goal)}),
    }
    say(f"{method}, metric {form.name}: {precision} gradients ({why})")
    return Method(study, precision, None, identity)


def measure(bench: Bench, metric: str, method: str, specs: Sequence[CaseSpec], peers: Any) -> Row:
    """One row: stored, or measured chunk by chunk and stored as it goes."""
    form = known_metric(bench.cfg, metric)
    ids = [s.case_id for s in specs]
    file = bench.folder / f"{metric}-{method}-{len(ids)}.json"
    stored = read_row(file) if bench.cfg["resume"] else None
    size = chunk_size(bench.victim, bench.cfg["batch_size"], len(specs))
    setting = setting_of(bench.victim, bench.records, ids)
    made = _method(bench, form, method, peers, len(specs), size)
    of = {key: made.identity.get(key) for key in ("metric", "goal")}
    if stored is not None and stored.origin == "imported" and _fits(stored.identity, setting | of):
        return stored
    identity = setting | made.identity | {"batch_size": size}
    if stored is not None and stored.identity == identity and len(stored.case_id) == len(ids):
        return stored
    if stored is None or stored.identity != identity:
        if stored is not None:
            say(f"{file.name}: holds another measurement, measured again")
        stored = Row(
            metric, method, [], [], [], [], [], [], 0.0, None, None, identity, "measured",
            machine(),
        )  # fmt: skip
    else:
        say(f"{file.name}: resumed at case {len(stored.case_id)} of {len(ids)}")
        stored = dataclasses.replace(stored, origin="resumed")
    with Progress(f"{method} {metric}", len(ids)) as progress:
        while len(stored.case_id) < len(ids):
            chunk = list(specs[len(stored.case_id) : len(stored.case_id) + size])
            stored = _add_chunk(bench, made, stored, chunk, size)
            write_atomic(file, json.dumps(dataclasses.asdict(stored)))
            progress.update(len(stored.case_id), f"success {sum(stored.success)}")
    return stored


def _add_chunk(bench: Bench, method: Method, row: Row, chunk: list[CaseSpec], size: int) -> Row:
    batch = bench.records.batch([s.position for s in chunk], bench.victim.n, bench.victim.over)
    cases = Chunk(flatten(batch.x), batch.lengths, *class_indices(chunk, bench.victim.classes))
    meter = Meter()
    found = method.study.run(
        cases, width=size, precision=method.precision, solve=method.solve, meter=lambda: meter
    )
    # The solver works on full chunks only: of the last one the share of its cases counts.
    share = len(chunk) / size
    for spec, status, reason in zip(chunk, found.status, found.message, strict=True):
        if status != "ok":
            say(f"note: {spec.case_id} counts as a failure: {reason}")
    delta = found.delta.astype(np.float64)
    assert found.trials is not None
    verdicts = zip(found.trials, found.status, strict=True)
    return dataclasses.replace(
        row,
        case_id=row.case_id + [s.case_id for s in chunk],
        success=row.success + [t.success and status == "ok" for t, status in verdicts],
        distance=row.distance + [float(v) for v in method.study.metric.value(delta)],
        d_l2=row.d_l2 + [float(v) for v in metrics.d_l2(delta)],
        gradients=row.gradients + [int(v) for v in found.gradients],
        forwards=row.forwards + [int(v) for v in found.forwards],
        seconds=row.seconds + meter.seconds * share,
        cpu_seconds=(row.cpu_seconds or 0.0) + meter.cpu_seconds * share,
        peak_mb=max(row.peak_mb or 0.0, meter.peak),
        growth_mb=max(row.growth_mb or 0.0, meter.peak - meter.before),
    )


def setting_of(victim: Victim, records: RecordSet, case_ids: Sequence[str]) -> dict[str, Any]:
    """What rows that may be compared have in common, and the digest of their cases."""
    return {
        "victim": victim.sha256,
        "data": records.digest,
        "cases": hashlib.sha256("\n".join(case_ids).encode()).hexdigest()[:16],
        "backend": backend.running(),
    }


def _fits(identity: Mapping[str, Any], setting: Mapping[str, Any]) -> bool:
    return all(identity.get(key) == value for key, value in setting.items() if key != "backend")


def _same_setting(row: Row, other: Row) -> bool:
    """Whether the distances of two rows are of the same victim, data, metric and goal."""
    keys = ("victim", "data", "metric", "goal")
    return row.metric == other.metric and all(
        row.identity.get(key) == other.identity.get(key) for key in keys
    )


def _write(
    folder: Path,
    table: list[Compared],
    scaling: list[Compared],
    missing: Mapping[str, str],
    rows: Sequence[Row],
) -> None:
    from rich.console import Console
    from rich.table import Table

    # Where Hydra was told to write says nothing about the result.
    command = "python run.py " + shlex.join(a for a in sys.argv[1:] if not a.startswith("hydra."))
    where = rows[0].machine
    versions = ", ".join(f"{k} {v}" for k, v in where["versions"].items())
    text = report.markdown(
        table, scaling, command=command, missing=missing,
        machine=f"{where['processor']}, {where['cores']} cores, {where['device']} ({versions})",
    )  # fmt: skip
    write_atomic(folder / "benchmark.md", text)
    told = {"comparison": table, "scaling": scaling}
    content: dict[str, Any] = {
        name: [dataclasses.asdict(line) for line in lines] for name, lines in told.items()
    }
    content |= {"missing": dict(missing), "machine": where}
    write_atomic(folder / "benchmark.json", json.dumps(_finite(content), indent=1))
    style.save(report.distance_against_gradients(table), folder / "figures" / "benchmark.png")
    console = Console()
    for metric in dict.fromkeys(row.metric for row in table):
        shown = Table(title=f"metric={metric}", box=None, pad_edge=False)
        for name, place in report.CONSOLE.items():
            shown.add_column(name, justify="right" if place else "left", no_wrap=True)
        for row in table:
            if row.metric == metric:
                line = report.cells(row)
                shown.add_row(*(line[place] for place in report.CONSOLE.values()))
        console.print(shown)
    print(f"results: {folder / 'benchmark.md'}")


def _finite(tree: Any) -> Any:
    """The same with null for infinities and NaN, which JSON lacks."""
    if isinstance(tree, dict):
        return {k: _finite(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_finite(v) for v in tree]
    return None if isinstance(tree, float) and not np.isfinite(tree) else tree
