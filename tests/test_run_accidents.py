"""Accidents of runs, folders, paths and stores: the right numbers, or one line and nothing changed.

One finished run, tracked in MLflow, stands for all that a command may spoil. Each row of the first
table is a command that must be refused: every file keeps its bytes and time, MLflow its rows.
"""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import sqlite3
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import small_world, status_of, table, without_times

from ecgadv import cli, config
from ecgadv.errors import ConfigError, RefusedError, StoreError, VictimError
from ecgadv.records import cache
from ecgadv.signature import signature
from ecgadv.store import FolderLock, load_run
from ecgadv.store.identity import holds_results, stored_identity
from ecgadv.tracking import database, memory, uris

COMMON = ("attack.steps=4", "target=N", "tracking.system_metrics=false")


class World:
    """A finished run in ``folder`` of the project ``root``, and the command that made it."""

    def __init__(self, place: Path) -> None:
        overrides = [o for o in small_world(place, 4) if o != "tracking=none"]
        self.place, self.root = place, place / "project"
        self.folder = self.root / "mine"
        self.data, self.victim = place / "records.npz", place / "small.keras"
        self.base = [*overrides, *COMMON, f"paths.root={self.root}"]
        self.command = [*self.base, f"hydra.run.dir={self.folder}"]
        assert cli.main(self.command) == 0

    def without(self, *keys: str) -> list[str]:
        return [o for o in self.command if o.partition("=")[0] not in keys]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def fingerprint(root):
    """Bytes and time of every file below a folder, and what its MLflow database says."""
    files = {
        str(p.relative_to(root)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }
    dump = []
    if (root / "mlflow.db").is_file():
        with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as db:
            dump = list(db.iterdump())
    return files, dump


# --- refused, and nothing has changed ---------------------------------------------------------


@contextlib.contextmanager
def instead(file, write):
    """Another content of a file for a while; afterwards the old one with its old time."""
    kept, times = file.read_bytes(), file.stat()
    write(file)
    try:
        yield
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def edit_one_sample(file):
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["signals"][0, 100] += 0.05
    np.savez(file, **arrays)


def train_on(file):
    import keras

    model = keras.saving.load_model(file, safe_mode=True)
    model.set_weights([1.01 * w for w in model.get_weights()])
    model.save(file)


def broken_victim(monkeypatch):
    def fails(*_):
        raise VictimError("victim small: its optional library is gone")

    monkeypatch.setattr("ecgadv.tasks.attack.open_victim", fails)
    monkeypatch.setattr("ecgadv.tasks.attack._is_done", lambda *_: False)


def interrupted(monkeypatch):
    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ecgadv.tasks.attack.open_records", stops)


REFUSED = {
    # name: (overrides on top of the run's own, what the line says)
    "another metric": (["metric=diff"], "the configuration differs: metric=l2, not diff"),
    "another seed": (["seed=1"], "the configuration differs: seed=0, not 1"),
    "another target": (["target=A"], "target=N, not A"),
    "one step more": (["attack.steps=5"], "attack.steps=4, not 5"),
    "another precision": (["precision=float32"], "precision=auto, not float32"),
    "task=evaluate": (["task=evaluate", "evaluate.run={folder}"], "task=attack, not evaluate"),
    "task=report": (["task=report", "report.run={folder}"], "task=attack, not report"),
    "task=track": (["task=track", "track.run={folder}"], "task=attack, not track"),
    "task=train": (
        ["task=train", "train.epochs=2", "train.short_epochs=1", "train.architecture=compact"],
        "task=attack, not train",
    ),
    "task=benchmark": (["task=benchmark"], "task=attack, not benchmark"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_command_changes_nothing(name, world, capsys):
    more, line = REFUSED[name]
    keys = {o.partition("=")[0] for o in more}
    before = fingerprint(world.root)
    argv = [*world.without(*keys), *(o.format(folder=world.folder) for o in more)]
    argv = [o for o in argv if "benchmark" not in name or not o.startswith("selection=")]
    assert cli.main(argv) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert said.endswith("; use resume=false or another folder")
    assert fingerprint(world.root) == before


def test_data_that_were_edited_under_their_name(world, capsys):
    before = fingerprint(world.root)
    with instead(world.data, edit_one_sample):
        assert cli.main(world.command) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "(the data differ: the recordings have changed since)" in said
    assert fingerprint(world.root) == before


def test_a_victim_that_was_trained_on_under_its_name(world, capsys):
    before = fingerprint(world.root)
    with instead(world.victim, train_on):
        assert cli.main(world.command) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "the configuration differs: the content of victim.path" in said
    assert fingerprint(world.root) == before


def test_another_version_of_the_attack(world, capsys, monkeypatch):
    monkeypatch.setattr("ecgadv.tasks.attack.ATTACK_VERSION", "next")
    before = fingerprint(world.root)
    assert cli.main(world.command) == 2
    said = capsys.readouterr().err
    assert "the version of the attack differs: 1, not next" in said or "not next)" in said
    assert fingerprint(world.root) == before


def test_a_folder_that_another_process_works_on(world, capsys):
    with FolderLock(world.folder):
        before = fingerprint(world.root)
        assert cli.main(world.command) == 2
        assert fingerprint(world.root) == before
    assert "is working on this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accident", "code", "line"),
    [(broken_victim, 2, "its optional library is gone"), (interrupted, 130, "interrupted")],
)
def test_what_ends_before_it_begins_leaves_a_finished_run_finished(
    accident, code, line, world, capsys, monkeypatch
):
    accident(monkeypatch)
    before = fingerprint(world.root)
    assert cli.main(world.command) == code
    assert line in capsys.readouterr().err
    assert fingerprint(world.root) == before
    assert status_of(world.folder)["status"] == "finished"


def test_data_that_are_gone(world, capsys):
    before = fingerprint(world.root)
    away = world.data.with_suffix(".away")
    world.data.rename(away)
    try:
        assert cli.main(world.command) == 2
    finally:
        away.rename(world.data)
    assert "there is no such file" in capsys.readouterr().err
    assert fingerprint(world.root) == before


def test_a_sweep_into_the_folder_of_a_run(world, capsys):
    before = fingerprint(world.root)
    argv = ["-m", *world.base, "metric=l2,diff", f"hydra.sweep.dir={world.folder}"]
    assert cli.main(argv) == 2
    assert "holds a run (plan.json), no sweep" in capsys.readouterr().err
    assert fingerprint(world.root) == before


def test_a_folder_of_somebody_elses_files(world, tmp_path, capsys):
    place = tmp_path / "theirs"
    place.mkdir()
    (place / "config.json").write_text('{"editor": "vim"}')
    (place / "summary.json").write_text("[1, 2]")
    before = fingerprint(place)
    argv = [*world.without("hydra.run.dir"), f"hydra.run.dir={place}", "tracking=none"]
    argv = [o for o in argv if not o.startswith("tracking.")]
    assert cli.main(argv) == 2
    assert "that no run made; use another folder" in capsys.readouterr().err
    assert fingerprint(place) == before


def test_the_same_command_again_computes_nothing(world, capsys):
    rows = (world.folder / "cases.csv").read_bytes()
    assert cli.main(world.command) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert (world.folder / "cases.csv").read_bytes() == rows


def test_resume_false_starts_afresh_beside_a_folder_that_was_named(world, capsys):
    before = fingerprint(world.folder)
    argv = [o for o in world.command if not o.startswith("tracking.")]
    assert cli.main([*argv, "resume=false", "tracking=none"]) == 0
    second = world.folder.with_name("mine-2")
    assert f"with resume=false the results go to {second}" in capsys.readouterr().err
    assert without_times(table(second)) == without_times(table(world.folder))
    assert fingerprint(world.folder) == before
    shutil.rmtree(second)


# --- sweeps -----------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A stand-in for the attack, which keeps whose results a folder holds as the real one does."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("ecgadv.tasks.attack")

    def run(cfg, folder):
        identity = {"signature": signature(cfg), "data": module.data}
        (folder / "plan.json").write_text(json.dumps({"identity": identity, "chunks": []}))
        return 0

    module.run, module.data = run, "first"
    module.known_identity = lambda cfg: {"data": module.data}
    monkeypatch.setitem(sys.modules, "ecgadv.tasks.attack", module)
    monkeypatch.setattr("ecgadv.backend.configure", lambda name: None)
    return module


SHUFFLED = [
    ("metric=shuffle(l2,diff)", {"metric=l2", "metric=diff"}),
    ("seed=shuffle(range(0,4))", {f"seed={i}" for i in range(4)}),
    ("metric=shuffle(l2,diff,diffl2)", {"metric=l2", "metric=diff", "metric=diffl2"}),
    ("metric=glob(*)", {"metric=l2", "metric=diff", "metric=diffl2"}),
    ("metric=glob(diff*)", {"metric=diff", "metric=diffl2"}),
    ("metric=glob([*],exclude=l2)", {"metric=diff", "metric=diffl2"}),
    ("attack.steps=range(10,40,10)", {f"attack.steps={i}" for i in (10, 20, 30)}),
    ("selection.source=shuffle([N],[A,O])", {"selection.source=[N]", "selection.source=[A,O]"}),
]


@pytest.mark.parametrize(("swept", "wanted"), SHUFFLED)
def test_a_sweep_has_the_same_jobs_each_time(swept, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [config.compose_checked(["-m", swept, "tracking=none"]) for _ in range(4)]
    assert {c.folder for c in found} == {found[0].folder}
    assert {c.overrides for c in found} == {found[0].overrides}
    jobs = [
        next(o for o in j.overrides if o.startswith(swept.split("=")[0])) for j in found[0].jobs
    ]
    assert set(jobs) == wanted
    assert len(jobs) == len(wanted)


def test_a_shuffled_sweep_finds_itself_again(task, tmp_path, capsys):
    argv = ["-m", "metric=shuffle(l2,diff,diffl2)", "tracking=none"]
    for _ in range(2):
        assert cli.main(argv) == 0
    (sweep,) = (tmp_path / "multirun_outputs").iterdir()
    jobs = sorted(p.parent for p in sweep.glob("*/status.json"))
    assert len(jobs) == 3
    assert {stored_identity(j)["signature"] for j in jobs} == {
        j.signature for j in config.compose_checked(argv).jobs
    }


def test_shuffled_parameters_of_hydras_sweeper(task, tmp_path):
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mixed.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      metric: shuffle(l2,diff)\n"
    )
    argv = ["--config-dir", str(own.parent), "-m", "experiment=mixed", "tracking=none"]
    for _ in range(2):
        assert cli.main(argv) == 0
    (sweep,) = (tmp_path / "multirun_outputs").iterdir()
    assert len(list(sweep.glob("*/status.json"))) == 2


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["metric=glob(x*)"], "metric=glob(x*): no option of metric matches (diff, diffl2, l2)"),
        (["seed=glob(*)"], "seed=glob(*): glob is for the options of a group; seed is none"),
        (["seed=interval(0,3)"], "Hydra's own sweeper needs single values or a range"),
        (["metric=l2,l2"], "jobs 0 and 1 of the sweep are the same"),
        (["seed=0,1,0"], "jobs 0 and 2 of the sweep are the same"),
        (["target=A", "selection.source=A,[A]"], "nothing to attack, the target is the class of"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_line(argv, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["-m", *argv, "tracking=none"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert list(tmp_path.iterdir()) == []


def test_an_empty_cell_of_a_sweep_is_left_out(task, tmp_path, capsys):
    argv = ["-m", "target=A,N", "selection.source=[A],[N]", "tracking=none"]
    assert cli.main(argv) == 0
    said = capsys.readouterr()
    assert said.err.count("nothing to attack, the target is the class of every selected") == 2
    assert said.err.count("this job is left out") == 2
    statuses = [status_of(p.parent)["status"] for p in tmp_path.rglob("status.json")]
    assert sorted(statuses) == ["finished"] * 2 + ["skipped"] * 2
    assert "did not begin" not in said.out


SWEEPS = {
    "other jobs": (["metric=l2,diffl2"], "holds a job of another sweep (1_metric-diff)"),
    "fewer jobs": (["metric=l2"], "holds a job of another sweep (1_metric-diff)"),
    "another order": (["metric=diff,l2"], "in another order (0_metric-l2 is job 1 of this"),
    "another seed": (["metric=l2,diff", "seed=1"], "holds a job of another sweep (0_metric-l2)"),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_the_folder_of_another_sweep_stays_as_it_is(name, task, tmp_path, capsys):
    more, line = SWEEPS[name]
    here = ["tracking=none", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert cli.main(["-m", "metric=l2,diff", *here]) == 0
    before = fingerprint(tmp_path)
    capsys.readouterr()
    assert cli.main(["-m", *more, *here]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert fingerprint(tmp_path) == before
    assert cli.main(["-m", *more, "resume=false", *here]) == 0
    assert len(list((tmp_path / "sweep-2").glob("*/status.json"))) >= 1


def test_a_sweep_may_grow(task, tmp_path):
    here = ["tracking=none", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert cli.main(["-m", "metric=l2,diff", *here]) == 0
    assert cli.main(["-m", "metric=l2,diff,diffl2", *here]) == 0
    assert len(list((tmp_path / "sweep").glob("*/status.json"))) == 3


def test_a_sweep_whose_data_were_edited_stays_as_it_is(task, tmp_path, capsys):
    assert cli.main(["-m", "metric=l2,diff", "tracking=none"]) == 0
    before = fingerprint(tmp_path)
    task.data = "second"
    assert cli.main(["-m", "metric=l2,diff", "tracking=none"]) == 2
    assert "the data differ" in capsys.readouterr().err
    assert fingerprint(tmp_path) == before


def test_a_run_into_the_folder_of_a_sweep(task, tmp_path, capsys):
    assert cli.main(["-m", "metric=l2,diff", "tracking=none", "hydra.sweep.dir=sweep"]) == 0
    before = fingerprint(tmp_path)
    assert cli.main(["tracking=none", "hydra.run.dir=sweep"]) == 2
    assert "holds a sweep; use another folder" in capsys.readouterr().err
    assert fingerprint(tmp_path) == before


def test_a_job_that_is_refused_late_is_not_passed_over(task, tmp_path, capsys):
    """Its folder says finished, since nothing there has changed; the sweep says 2."""
    argv = ["-m", "metric=l2,diff", "tracking=none"]
    assert cli.main(argv) == 0

    def refuses(cfg, folder):
        raise VictimError("victim compact: cannot be read")

    task.prepare = refuses
    capsys.readouterr()
    assert cli.main(argv) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert {status_of(p.parent)["status"] for p in tmp_path.rglob("status.json")} == {"finished"}


def test_jobs_of_the_same_configuration_count_once_in_a_report(world, tmp_path):
    from ecgadv.report.write import write_sweep_report

    for name in ("0_metric-l2", "3_metric-l2"):
        shutil.copytree(world.folder, tmp_path / name)
    text = write_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert "same as 0_metric-l2" in text
    won = sum(row["success"] == "true" for row in table(world.folder))
    assert f"{won} of {len(table(world.folder))} (" in text


# --- tables that were cut off -----------------------------------------------------------------


@pytest.fixture
def copied(world, tmp_path):
    """The finished run at another place."""
    shutil.copytree(world.folder, tmp_path / "mine")
    return tmp_path / "mine"


CUTS = {
    "in a line": (lambda text: text[: len(text) - 40], "its last line has no end"),
    "after a line": (lambda text: "\n".join(text.splitlines()[:2]) + "\n", "it holds 1 of "),
    "all but the head": (lambda text: text.splitlines()[0] + "\n", "it holds 0 of "),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_table_that_was_cut_off_is_said_by_who_reads_it(name, world, copied, tmp_path, capsys):
    cut, line = CUTS[name]
    whole = (copied / "cases.csv").read_text()
    (copied / "cases.csv").write_text(cut(whole))
    for task in (
        ["task=evaluate", f"evaluate.run={copied}"],
        ["task=report", f"report.run={copied}"],
    ):
        own = world.without("hydra.run.dir", "paths.root", "target", "tracking.system_metrics")
        assert cli.main([*own, *task, "tracking=none", f"paths.root={tmp_path}"]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert line in said
        assert "the command that made the run writes it again from its parts" in said
    with pytest.raises(StoreError, match="is cut off"):
        _ = load_run(copied).cases
    if name == "after a line":
        argv = [*world.without("hydra.run.dir", "tracking.system_metrics"), "tracking=none"]
        assert cli.main([*argv, f"hydra.run.dir={copied}"]) == 0
        assert (copied / "cases.csv").read_text() == whole


# --- the store of MLflow ----------------------------------------------------------------------


def runs_of(root):
    api = database.client(uris.resolve_uri(None, root))
    experiments = [e.experiment_id for e in api.search_experiments()]
    return api, api.search_runs(experiments)


def copy_project(world, place):
    shutil.copytree(world.root, place)
    return [*world.without("hydra.run.dir", "paths.root"), f"paths.root={place}"]


def test_artifacts_follow_a_project_that_was_moved(world, tmp_path):
    """Of a copy, too: nothing of it is looked for, or written, in the old place."""
    place = tmp_path / "new"
    argv = copy_project(world, place)
    before = fingerprint(world.root)
    assert cli.main([*argv, "seed=7"]) == 0
    api, runs = runs_of(place)
    assert len(runs) == 2
    for run in runs:
        assert run.info.artifact_uri.startswith((place / "mlartifacts").as_uri())
        assert "cases.csv" in [a.path for a in api.list_artifacts(run.info.run_id)]
    assert fingerprint(world.root) == before
    # What a finished run remembers of the store still holds: no second upload.
    assert memory.recall(place / "mine" / memory.RUN_FILE, uris.resolve_uri(None, place)) == {}
    kept = json.loads((place / "mine" / memory.RUN_FILE).read_text())
    gone = {f"sqlite:///{tmp_path / 'old' / 'mlflow.db'}": next(iter(kept.values()))}
    (place / "mine" / memory.RUN_FILE).write_text(json.dumps(gone))
    known = memory.recall(place / "mine" / memory.RUN_FILE, uris.resolve_uri(None, place))
    assert known["run_id"] in {run.info.run_id for run in runs}


@pytest.mark.parametrize("name", ["a b?c%20d#e&f=g,'h'[i]é."])
def test_a_project_is_where_its_path_says(name, world, tmp_path):
    place = tmp_path / name
    argv = copy_project(world, place)
    quoted = name.replace("'", "\\'")
    argv = [o for o in argv if not o.startswith(("paths.root=", "data.root="))]
    shutil.copy(world.data, place / "my records?.npz")
    argv += [
        f"paths.root='{tmp_path}/{quoted}'",
        f"data.root='{tmp_path}/{quoted}/my records?.npz'",
    ]
    assert cli.main([*argv, "tracking.experiment=Default"]) == 0
    (folder,) = (place / "outputs").iterdir()
    assert without_times(table(folder)) == without_times(table(world.folder))
    _, runs = runs_of(place)
    (run,) = [r for r in runs if r.info.run_name == folder.name]
    # MLflow's own experiment would keep them in the folder that the command was started in.
    assert (place / "mlartifacts" / run.info.run_id / "artifacts" / "cases.csv").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]
    assert sorted(p.name for p in place.glob("mlflow*")) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("my db?.sqlite", "my db?.sqlite"),
        ("50%41.db", "50%41.db"),
        ("sqlite:///a.db?timeout=9", "a.db"),
        ("a#b&c=d,e.db", "a#b&c=d,e.db"),
        ("dir/../x.", "x."),
    ],
)
def test_an_address_is_that_of_the_file(given, file, tmp_path):
    from sqlalchemy import create_engine

    uri = uris.resolve_uri(given, tmp_path)
    assert uris.sqlite_file(uri) == tmp_path / file
    create_engine(uri).connect().close()
    assert [p.name for p in tmp_path.iterdir()] == [file]


def test_an_address_with_a_question_mark_in_its_path_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="begins options; give the path alone"):
        uris.resolve_uri("sqlite:////data/what?/mlflow.db", tmp_path)


def test_mlflow_has_every_digit_of_the_cases(world):
    api, (run, *_) = runs_of(world.root)
    stored = json.loads(Path(api.download_artifacts(run.info.run_id, "cases.json")).read_text())
    with (world.folder / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(stored["data"]) == len(rows)
    for column in ("d_l2", "d_smooth", "margin", "p_target"):
        place = stored["columns"].index(column)
        assert [f"{row[place]:.9g}" for row in stored["data"]] == [r[column] for r in rows]


# --- caches that several people share -----------------------------------------------------------


def test_entries_of_a_cache_are_for_everybody(tmp_path, monkeypatch):
    from ecgadv.records import synthetic

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    before = os.umask(0o022)
    try:
        records = cache.cached("synthetic", "k", lambda: synthetic._generate(0, 1, 0.35))
    finally:
        os.umask(before)
    (entry,) = tmp_path.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o755
    assert {p.stat().st_mode & 0o777 for p in entry.iterdir()} == {0o644}
    # Another person's entry that is closed: the own one is made beside it, and found again.
    load = cache.load

    def closed(folder):
        if folder == entry:
            raise PermissionError(13, "Permission denied", str(folder))
        return load(folder)

    monkeypatch.setattr(cache, "load", closed)
    monkeypatch.setattr(cache.shutil, "rmtree", lambda *a, **k: None)
    for _ in range(2):
        assert cache.cached("synthetic", "k", lambda: records).ids == records.ids
    assert len([p for p in tmp_path.iterdir() if not p.name.startswith(".")]) == 2


def test_a_cache_that_cannot_be_written_is_said_once(tmp_path, monkeypatch, capsys):
    from ecgadv.tasks.common import use_caches

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "is_writable", lambda: False)
    for _ in range(2):
        use_caches({"paths": {"data": None}})
    (said,) = capsys.readouterr().err.splitlines()
    assert f"nothing can be kept in the cache {tmp_path / 'cache'}" in said


# --- what a folder holds --------------------------------------------------------------------------


def test_whose_results_a_folder_holds(world, tmp_path):
    assert stored_identity(tmp_path) == {}
    assert not holds_results(tmp_path)
    kept = stored_identity(world.folder)
    assert kept["signature"] == config.compose_checked(world.command).signature
    (tmp_path / "config.json").write_bytes((world.folder / "config.json").read_bytes())
    # A run that failed before it had a result is no obstacle to the next try.
    assert stored_identity(tmp_path) == {}
    (tmp_path / "cases.csv").write_text("case_id\n")
    assert stored_identity(tmp_path) == {"signature": kept["signature"]}
    (tmp_path / "cases.csv").unlink()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"holds a config\.json that no run made"):
        stored_identity(tmp_path)
