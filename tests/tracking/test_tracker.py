"""The tracker on real stores: sqlite files, several processes, a server out of reach."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from fake_run import config, write_run

from ecgadv.tracking import open_tracker, upload
from ecgadv.tracking.database import client
from ecgadv.tracking.sweep import finish_parent, start_parent

SETTINGS = {"name": "mlflow", "uri": None, "experiment": "test", "system_metrics": False}


def tracker_of(folder, root, **changes):
    return open_tracker(SETTINGS | changes, config(), folder, root=root, signature="abc0")


def store(root):
    return client(f"sqlite:///{root}/mlflow.db")


def test_a_run_from_start_to_end(root, monkeypatch):
    monkeypatch.chdir(root)
    folder = write_run(root / "outputs" / "l2-abc0")
    (folder / "figures").mkdir()
    (folder / "figures" / "success_heatmap.png").write_bytes(b"png")
    data = {"name": "synthetic", "digest": "d" * 64, "n_records": 160}
    with tracker_of(folder, root) as tracker:
        tracker.start(data)
        tracker.progress(26, {"success_rate": 0.5})
        tracker.finish("FINISHED")
    run = store(root).get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "l2-abc0"
    assert run.data.params["metric"] == "l2"
    # The final value comes after the progress, at a step that is not before it.
    assert run.data.metrics["success_rate"] == pytest.approx(23 / 25)
    assert run.data.metrics["success_rate/A_to_noise"] == 0.5
    assert run.data.metrics["d_smooth_l2/median"] > 0
    assert run.data.tags["signature"] == "abc0"
    assert run.data.tags["version.numpy"]
    assert run.data.tags["version.keras"] == "3.15.0"
    assert "| A | ~ |" in run.data.tags["mlflow.note.content"]
    (dataset,) = [d.dataset for d in run.inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("synthetic", "d" * 36)
    kept = {f.path for f in store(root).list_artifacts(tracker.run_id)}
    assert {"cases.csv", "cases.json", "perturbations.npz", "config.json", "figures"} <= kept
    table = root / "mlartifacts" / tracker.run_id / "artifacts" / "cases.json"
    content = json.loads(table.read_text())
    assert len(content["data"]) == 26
    assert content["data"][0][content["columns"].index("success")] is True
    assert "cases.json" in run.data.tags["mlflow.loggedArtifacts"]
    assert not (root / "mlruns").exists()


def test_a_resumed_case_goes_on_in_the_same_run(root):
    folder = root / "run"
    folder.mkdir()
    with tracker_of(folder, root) as first:
        first.start()
        first.finish("KILLED")
    assert store(root).get_run(first.run_id).info.status == "KILLED"
    write_run(folder)
    for _ in range(2):
        with tracker_of(folder, root) as again:
            again.start()
    run = store(root).get_run(first.run_id)
    assert again.run_id == first.run_id
    assert run.info.status == "FINISHED"
    table = root / "mlartifacts" / first.run_id / "artifacts" / "cases.json"
    assert len(json.loads(table.read_text())["data"]) == 26


def test_another_signature_or_a_deleted_run_starts_anew(root):
    folder = root / "run"
    folder.mkdir()
    ids = []
    for signature in ("one", "two", "two"):
        tracker = open_tracker(SETTINGS, config(), folder, root=root, signature=signature)
        tracker.start()
        tracker.finish()
        ids.append(tracker.run_id)
        if len(ids) == 2:
            store(root).delete_run(ids[1])
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (ValueError("x"), "FAILED"),
    ],
)
def test_how_a_run_ends(root, error, status):
    folder = root / "run"
    folder.mkdir()
    tracker = tracker_of(folder, root)

    def job():
        with tracker:
            tracker.start()
            raise error

    with pytest.raises(type(error)):
        job()
    assert store(root).get_run(tracker.run_id).info.status == status


def test_epochs_are_metrics(root):
    folder = root / "run"
    folder.mkdir()
    with tracker_of(folder, root) as tracker:
        tracker.start()
        for epoch in (1, 2):
            tracker.log_epoch({"epoch": epoch, "loss": 1 / epoch, "f1": {"~": 0.5}, "note": "x"})
    history = store(root).get_metric_history(tracker.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]
    assert store(root).get_run(tracker.run_id).data.metrics["f1/noise"] == 0.5


CHILD = """
import signal, sys, time
from pathlib import Path
from ecgadv.tracking import open_tracker
folder, how = Path(sys.argv[1]), sys.argv[2]
settings = {"name": "mlflow", "experiment": "test"}
if how == "sigterm":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
tracker = open_tracker(settings, {"metric": {"name": "l2"}}, folder, root=folder.parent)
tracker.start()
for step in range(20):
    tracker.progress(step, {"success_rate": step / 20})
print(tracker.run_id, flush=True)
if how == "finish":
    tracker.finish("FINISHED")
elif how == "sigterm":
    time.sleep(60)
"""


def start_child(folder, how):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), how], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_sigterm_and_a_forgotten_finish_end_as_killed(root):
    stopped = start_child(root / "a", "sigterm")
    run_a = stopped.stdout.readline().strip()
    stopped.send_signal(signal.SIGTERM)
    left = start_child(root / "b", "leave")
    run_b = left.stdout.readline().strip()
    assert stopped.wait(30) == 143
    assert left.wait(30) == 0
    assert {store(root).get_run(r).info.status for r in (run_a, run_b)} == {"KILLED"}


@pytest.mark.slow
def test_four_processes_on_a_fresh_database(tmp_path):
    children = [start_child(tmp_path / str(k), "finish") for k in range(4)]
    runs = [child.communicate(timeout=120)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0] * 4
    api = store(tmp_path)
    assert len(set(runs)) == 4
    assert {api.get_run(r).info.status for r in runs} == {"FINISHED"}
    assert [e.name for e in api.search_experiments()].count("test") == 1
    assert {api.get_run(r).info.experiment_id for r in runs} == {
        api.get_experiment_by_name("test").experiment_id
    }


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/nowhere/mlflow.db"])
def test_an_unreachable_store_costs_one_warning_and_no_result(tmp_path, capfd, uri):
    folder = write_run(tmp_path / "run")
    before = sorted(p.name for p in folder.iterdir())
    start = time.monotonic()
    with tracker_of(folder, tmp_path, uri=uri) as tracker:
        tracker.start({"name": "x"})
        tracker.progress(1, {"success_rate": 1.0})
        tracker.log_epoch({"epoch": 1, "loss": 1.0})
        tracker.finish("FINISHED")
    assert time.monotonic() - start < 30
    (message,) = capfd.readouterr().err.splitlines()
    assert uri in message
    assert "task=track" in message
    assert tracker.failed
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_store_that_breaks_on_the_way_is_warned_of_and_survived(root, capfd, monkeypatch):
    folder = write_run(root / "run")
    with tracker_of(folder, root) as tracker:
        tracker.start()

        def broken(*args, **kwargs):
            raise OSError("disk is gone\nsecond line")

        monkeypatch.setattr(tracker._api, "log_batch", broken)
        for step in range(3):
            tracker.log_epoch({"epoch": step, "loss": 1.0})
    messages = capfd.readouterr().err.splitlines()
    assert len(messages) == 2  # one for the epochs, one for the results
    assert all("disk is gone" in m and "second" not in m for m in messages)


def test_a_locked_database_is_tried_again(root, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    tracker = tracker_of(root, root)
    calls = []

    def locked_twice():
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("(sqlite3.OperationalError) database is locked")

    assert tracker._try("x", locked_twice)
    assert len(calls) == 3


@pytest.mark.slow
def test_an_old_database_is_upgraded_after_a_copy(tmp_path):
    import sqlite3

    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    from ecgadv.tracking import database

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    alembic = utils._get_alembic_config(uri)
    head = utils._get_latest_schema_revision()
    old = ScriptDirectory.from_config(alembic).get_revision(head).down_revision
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, old)

    database.prepare(uri, "test", tmp_path / "mlartifacts")

    def revision(file):
        with sqlite3.connect(file) as db:
            return db.execute("select version_num from alembic_version").fetchone()[0]

    assert revision(tmp_path / "mlflow.db") == head
    assert revision(tmp_path / f"mlflow.db.before-upgrade-from-{old}") == old


def test_system_metrics(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    folder = root / "run"
    folder.mkdir()
    with tracker_of(folder, root, system_metrics=True) as tracker:
        tracker.start()
        time.sleep(1.5)
    assert any(k.startswith("system/") for k in store(root).get_run(tracker.run_id).data.metrics)


def test_a_sweep_has_one_parent(root):
    sweep = root / "multirun_outputs" / "metrics"
    parent = start_parent(SETTINGS, sweep, root)
    for k, metric in enumerate(("l2", "diff")):
        job = write_run(sweep / str(k), seed=k, metric=metric)
        (job / ".hydra").mkdir()
        (job / ".hydra" / "overrides.yaml").write_text(f"- metric={metric}\n")
        with tracker_of(job, root) as tracker:
            tracker.start()
        run = store(root).get_run(tracker.run_id)
        assert run.data.tags["mlflow.parentRunId"] == parent
    assert finish_parent(SETTINGS, sweep, root) == "FINISHED"
    run = store(root).get_run(parent)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["n_jobs"] == 2
    assert run.data.metrics["best_success_rate"] == pytest.approx(23 / 25)
    assert "metric=diff" in run.data.tags["mlflow.note.content"]
    # A resumed sweep goes on under the same parent; a job that was cut off shows.
    assert start_parent(SETTINGS, sweep, root) == parent
    assert store(root).get_run(parent).info.status == "RUNNING"
    (sweep / "1" / "status.json").write_text('{"status": "killed"}')
    assert finish_parent(SETTINGS, sweep, root) == "KILLED"
    (sweep / "1" / "status.json").write_text('{"status": "failed"}')
    assert finish_parent(SETTINGS, sweep, root) == "FAILED"
    jobs = root / "mlartifacts" / parent / "artifacts" / "jobs.json"
    assert len(json.loads(jobs.read_text())["data"]) == 2


APP = """
import hydra, json, os
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from ecgadv.tracking import open_tracker

@hydra.main(version_base="1.3", config_path=None, config_name="app")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    assert "MLFLOW_RUN_ID" not in os.environ
    with open_tracker({"name": "mlflow", "experiment": "test"}, {"x": cfg.x}, folder,
                      root=Path(cfg.paths.root)) as tracker:
        tracker.start()
        status = "failed" if cfg.x < 0 else "finished"
        (folder / "status.json").write_text(json.dumps({"status": status}))
        if cfg.x < 0:
            raise ValueError("no")

main()
"""

APP_YAML = """
x: 0
paths: {root: .}
tracking: {name: mlflow, uri: null, experiment: test}
hydra:
  sweep: {dir: sweeps/one, subdir: "${hydra:job.num}"}
  callbacks: {sweep: {_target_: ecgadv.tracking.callback.SweepCallback}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("values", "status"), [("1,2", "FINISHED"), ("1,-2", "FAILED")])
def test_the_callback_in_a_hydra_sweep(root, values, status):
    (root / "app.py").write_text(APP)
    (root / "app.yaml").write_text(APP_YAML)
    done = subprocess.run(
        [sys.executable, "app.py", "--config-dir", ".", "-m", f"x={values}"],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert (done.returncode == 0) == (status == "FINISHED"), done.stderr
    api = store(root)
    runs = api.search_runs([api.get_experiment_by_name("test").experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2
    assert parent.info.status == status
    assert parent.data.metrics["n_jobs"] == 2


def test_upload_is_idempotent_and_groups_a_sweep(root):
    sweep = root / "multirun_outputs" / "s"
    for k in range(2):
        write_run(sweep / str(k), per_pair=1, seed=k)
    (sweep / "multirun.yaml").write_text("")
    alone = write_run(root / "outputs" / "alone", per_pair=1, seed=5)
    (root / "outputs" / "live").mkdir()
    (root / "outputs" / "live" / "status.json").write_text('{"status": "running"}')

    first = upload(root, SETTINGS, root=root)
    assert len(first.uploaded) == 3
    assert [p.name for p in first.running] == ["live"]
    api = store(root)
    runs = api.search_runs([api.get_experiment_by_name("test").experiment_id])
    assert len(runs) == 4
    assert sum("mlflow.parentRunId" in r.data.tags for r in runs) == 2
    assert {r.info.status for r in runs} == {"FINISHED"}

    second = upload(root, SETTINGS, root=root)
    assert not second.uploaded
    assert len(second.unchanged) == 3

    (alone / "report.html").write_text("a report")
    third = upload(root, SETTINGS, root=root)
    assert third.uploaded == [alone]
    assert len(api.search_runs([api.get_experiment_by_name("test").experiment_id])) == 4


def test_upload_to_an_unreachable_server_says_so(tmp_path):
    write_run(tmp_path / "run", per_pair=1)
    write_run(tmp_path / "run2", per_pair=1)
    done = upload(tmp_path, SETTINGS | {"uri": "http://127.0.0.1:9"}, root=tmp_path)
    assert [p.name for p in done.failed] == ["run", "run2"]


def test_upload_of_a_tracked_run_does_nothing(root):
    folder = write_run(root / "run")
    with tracker_of(folder, root) as tracker:
        tracker.start()
    assert upload(root, SETTINGS, root=root).unchanged == [folder]
