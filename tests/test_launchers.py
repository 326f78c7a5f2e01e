"""Sweeps whose jobs run side by side: joblib for real; how the cores are shared out."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from helpers import (
    REPO,
    command,
    environment,
    needs_patience,
    small_world,
    started,
    status_of,
    wait_for,
)

from ecgadv import backend, config
from ecgadv.cli import sweeps
from ecgadv.config import overrides
from ecgadv.errors import BackendError, ConfigError

JOBLIB = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}


@pytest.mark.parametrize(
    ("n_jobs", "jobs", "threads"),
    [
        (-1, 72, 1),
        (2, 72, 4),
        (-1, 3, 2),
        (4, 2, 4),
        (3, 72, 2),
        (64, 72, 1),
        (1, 5, 8),
        (-1, 0, 1),
    ],
)
def test_cores_are_shared_out(monkeypatch, n_jobs, jobs, threads):
    monkeypatch.setattr(sweeps, "cores", lambda: 8)
    assert sweeps._threads_a_job(JOBLIB | {"n_jobs": n_jobs}, jobs) == threads
    assert sweeps._threads_a_job({"_target_": "x.SlurmLauncher", "n_jobs": n_jobs}, jobs) is None


def test_cores_are_those_of_this_process():
    assert 1 <= sweeps.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "4", "SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "3", "ECGADV_THREADS": "1"}, 1),
    ],
)
def test_who_says_how_many_threads(monkeypatch, given, threads):
    for name in ("ECGADV_THREADS", "SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert backend.threads() == threads


@pytest.mark.parametrize("given", ["many", "0", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch, given):
    monkeypatch.setenv("ECGADV_THREADS", given)
    with pytest.raises(BackendError, match=f"ECGADV_THREADS={given}: must be a whole number"):
        backend.threads()


def test_tensorflow_keeps_to_its_threads():
    code = (
        "from ecgadv import backend; backend.configure('tensorflow')\n"
        "import tensorflow as tf; t = tf.config.threading\n"
        "print(t.get_intra_op_parallelism_threads(), t.get_inter_op_parallelism_threads())"
    )
    env = environment(ECGADV_THREADS="1")
    env.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize("name", ["joblib", "slurm", "ray", "submitit_slurm"])
def test_a_launcher_that_is_not_installed_is_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overrides.importlib.util, "find_spec", lambda _: None)
    extra = name.rpartition("_")[2]
    with pytest.raises(ConfigError, match=rf'launcher={name}: needs pip install "ecgadv\[{extra}'):
        config.compose_checked(["-m", f"hydra/launcher={name}", "metric=l2,diff"])


SHOWN = re.findall(
    r"^\$ python run\.py (.+)$", (REPO / "docs" / "sweeps.md").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_with_a_launcher_is_accepted(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overrides, "_check_launcher", lambda name: None)
    composed = config.compose_checked(shlex.split(line))
    assert len(composed.jobs) > 1
    assert "hydra_plugins." in composed.launcher["_target_"]


def test_commands_with_launchers_were_found():
    assert {"joblib", "slurm", "ray"} == {
        found for line in SHOWN for found in re.findall(r"hydra/launcher=(\w+)", line)
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Overrides of a small sweep."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs ecgadv[joblib]")
    overrides = small_world(tmp_path_factory.mktemp("world"))
    overrides.remove("tracking=none")
    return ["-m", *overrides, "batch_size=4", "tracking.system_metrics=false"]


def jobs(root):
    (sweep,) = (root / "multirun_outputs").iterdir()
    return sorted(p.parent for p in sweep.glob("*/status.json"))


def mlflow_runs(root):
    from ecgadv.tracking import database

    api = database.client(f"sqlite:///{root}/mlflow.db")
    return api.search_runs([api.get_experiment_by_name("ecgadv").experiment_id])


@pytest.mark.slow
def test_joblib_runs_jobs_side_by_side_under_one_parent(world, tmp_path):
    """Two workers on a database that is not there yet."""
    sweep = [*world, f"paths.root={tmp_path}", "attack.steps=4"]
    swept = ["metric=l2,diff"]
    done = subprocess.run(
        command(*sweep, *swept, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        capture_output=True, text=True, env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "warning" not in done.stderr.lower()
    folders = jobs(tmp_path)
    assert [status_of(f)["status"] for f in folders] == ["finished"] * 2
    # Both workers had work, none of it in the process that started them.
    assert len({status_of(f)["pid"] for f in folders}) == 2
    assert "1_metric-diff  finished" in done.stdout
    runs = mlflow_runs(tmp_path)
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(r.info.run_name for r in children) == [f.name for f in folders]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert parent.data.metrics["n_jobs_finished"] == 2


@needs_patience
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_joblib_sweep_ends_its_jobs_as_killed(world, tmp_path, number):
    sweep = [
        *world, f"paths.root={tmp_path}", "attack.steps=3000", "metric=l2,diff,diffl2",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    ]  # fmt: skip
    with started(*sweep) as process:
        wait_for(lambda: len(list(tmp_path.rglob("plan.json"))) == 2, process)
        time.sleep(2)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], err
    assert "Traceback" not in err
    assert [status_of(f)["status"] for f in jobs(tmp_path)] == ["killed"] * 2
    assert "1 of 3 jobs did not begin" in out
    runs = mlflow_runs(tmp_path)
    assert len(runs) == 3
    assert {r.info.status for r in runs} == {"KILLED"}
