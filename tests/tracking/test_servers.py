"""A real ``mlflow server`` on PostgreSQL: several jobs at once, and results that come later."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from fake_run import write_run

from ecgadv.tracking import database, upload
from ecgadv.tracking.sweep import finish_parent, start_parent

pytestmark = pytest.mark.slow

JOB = """
import sys
from pathlib import Path
from ecgadv.tracking import open_tracker
folder, uri = Path(sys.argv[1]), sys.argv[2]
settings = {"name": "mlflow", "uri": uri, "experiment": "test"}
with open_tracker(settings, {"metric": {"name": "l2"}}, folder, root=folder.parents[1]) as tracker:
    tracker.start({"name": "x"})
    for step in range(30):
        tracker.progress(step, {"success_rate": step / 30})
assert not tracker.failed
"""


def programs():
    """Folder of PostgreSQL's ``initdb`` and ``postgres``."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


@contextlib.contextmanager
def process(*line, log, **options):
    with open(log, "w") as file:
        child = subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True, **options)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)


@pytest.fixture(scope="module")
def postgres():
    """Address of an empty database of a PostgreSQL server of our own."""
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs ecgadv[postgres]")
    # The server refuses to run as root; another user needs a folder that it can reach.
    as_user, place = {}, Path(tempfile.mkdtemp(prefix="ecgadv-postgres-"))
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(place, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    home = {"env": os.environ | {"HOME": str(place)}, "cwd": place}
    subprocess.run(
        [binaries / "initdb", "-D", place / "data", "-U", "mlflow", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, **as_user, **home,
    )  # fmt: skip
    port = free_port()
    server = [binaries / "postgres", "-D", place / "data", "-p", str(port), "-k", place, "-h"]
    with process(*server, "127.0.0.1", log=place / "log", **as_user, **home):

        def is_up():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(is_up, 60)
        time.sleep(1)
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    """Address of an ``mlflow server`` on that database; the tables are made before it starts."""
    place = tmp_path_factory.mktemp("server")
    database.prepare(postgres, "other", place / "artifacts")
    port = free_port()
    line = [
        sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port),
        "--backend-store-uri", postgres, "--artifacts-destination", str(place / "artifacts"),
    ]  # fmt: skip
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with process(*line, log=place / "log", cwd=place, env=env):

        def is_up():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as page:
                    return page.status == 200
            except OSError:
                return False

        wait_until(is_up, 240)
        yield f"http://127.0.0.1:{port}"


def four_jobs(root, uri):
    """A sweep of four jobs in four processes at once; returns its runs by name."""
    settings = {"name": "mlflow", "uri": uri, "experiment": "test"}
    sweep = root / "sweep"
    parent = start_parent(settings, sweep, root)
    folders = [write_run(sweep / str(k), per_pair=1, seed=k) for k in range(4)]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(f), uri], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        for f in folders
    ]  # fmt: skip
    said = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, said
    assert not any("warning" in text for text in said), said
    assert finish_parent(settings, sweep, root) == "FINISHED"
    api = database.client(uri)
    runs = api.search_runs([api.get_experiment_by_name("test").experiment_id])
    mine = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent]
    assert sorted(r.info.run_name for r in mine) == ["0", "1", "2", "3"]
    assert {r.info.status for r in mine} == {"FINISHED"}
    assert len({r.info.experiment_id for r in runs}) == 1
    for run in mine:
        history = api.get_metric_history(run.info.run_id, "success_rate")
        assert len(history) >= 2
        names = {item.path for item in api.list_artifacts(run.info.run_id)}
        assert {"cases.csv", "perturbations.npz", "cases.json"} <= names
    return runs


def test_four_jobs_on_postgresql_itself(postgres, tmp_path):
    four_jobs(tmp_path, postgres)


def test_four_jobs_on_a_server(server, tmp_path):
    four_jobs(tmp_path, server)


def test_results_of_a_time_without_the_server_are_uploaded_later(server, tmp_path, capfd):
    """The jobs' server does not answer; the files are there, and go to it when it does."""
    from ecgadv.tracking import open_tracker

    run = write_run(tmp_path / "run", per_pair=1)
    silent = {"name": "mlflow", "uri": f"http://127.0.0.1:{free_port()}", "experiment": "later"}
    with open_tracker(silent, {}, run, root=tmp_path) as tracker:
        tracker.start()
    assert tracker.failed
    assert "upload them later with task=track" in capfd.readouterr().err
    settings = silent | {"uri": server}
    assert upload(tmp_path, settings, root=tmp_path).uploaded == [run]
    again = upload(tmp_path, settings, root=tmp_path)
    assert (again.uploaded, again.unchanged) == ([], [run])
    api = database.client(server)
    (stored,) = api.search_runs([api.get_experiment_by_name("later").experiment_id])
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["n_cases"] == 13
