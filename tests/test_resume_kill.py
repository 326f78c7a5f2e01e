"""A run that is killed at any moment and started again ends as one that was never disturbed."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import (
    REPO,
    command,
    environment,
    execute,
    run_folder,
    small_world,
    started,
    status_of,
    table,
    wait_for,
    without_times,
)

pytestmark = pytest.mark.slow

KILLER = """
import os, pathlib, signal, sys
name, moment = sys.argv[1], sys.argv[2]
sys.argv = [sys.argv[0], *sys.argv[3:]]
replace = os.replace

def watched(source, target, **options):
    ours = os.path.basename(os.fspath(target)) == name
    if ours and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **options)
    if ours and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = watched
from ecgadv.cli import main
sys.exit(main())
"""
"""Runs the command line; kills it outright before or after a file of this name is put in place."""

STEPS = "attack.steps=8"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Overrides of a small run, and the same run done without any disturbance."""
    folder = tmp_path_factory.mktemp("world")
    overrides = [*small_world(folder), "batch_size=4", "metric=diff"]
    whole = run_folder(execute(*overrides, STEPS, f"paths.root={folder / 'whole'}"))
    assert sum(row["success"] == "true" for row in table(whole)) >= 9
    return overrides, whole


def folder_of(root):
    (folder,) = (root / "outputs").iterdir()
    return folder


def kill_at(name, moment, *overrides):
    result = subprocess.run(
        [sys.executable, "-c", KILLER, name, moment, *overrides], capture_output=True, text=True,
        cwd=REPO, env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == -signal.SIGKILL, f"{name} {moment}: {result.stderr[-2000:]}"


def same(left, right):
    assert without_times(table(left)) == without_times(table(right))
    with np.load(left / "perturbations.npz") as a, np.load(right / "perturbations.npz") as b:
        for key in ("case_id", "delta", "scale_mv"):
            np.testing.assert_array_equal(a[key], b[key])
    ours, theirs = (json.loads((f / "summary.json").read_text()) for f in (left, right))
    timed = {"seconds", "cases_per_second"}
    assert {k: v for k, v in ours.items() if k not in timed} == {
        k: v for k, v in theirs.items() if k not in timed
    }


def test_killed_between_any_two_writes(world, tmp_path):
    overrides, whole = world
    here = [*overrides, STEPS, f"paths.root={tmp_path}"]
    for name, moment in [
        ("plan.json", "before"),
        ("part-000000.npz", "before"),
        ("part-000000.npz", "after"),
        ("part-000002.npz", "after"),
        ("perturbations.npz", "before"),
        ("summary.json", "before"),
    ]:
        kill_at(name, moment, *here)
    (folder,) = (tmp_path / "outputs").iterdir()
    assert status_of(folder)["status"] == "running"
    parts = {p.name: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()}
    assert len(parts) == 5
    result = execute(*here)
    assert run_folder(result) == folder
    assert "resuming: 18 of 18 cases are stored" in result.stderr
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()} == parts
    assert status_of(folder)["status"] == "finished"
    assert not list(folder.rglob("*.partial"))
    same(folder, whole)


def test_killed_in_the_middle_of_a_chunk(world, tmp_path):
    """From outside, with so many steps that chunks last, and at two moments of a chunk."""
    overrides, _ = world
    steps = "attack.steps=40"
    whole = run_folder(execute(*overrides, steps, f"paths.root={tmp_path / 'whole'}"))
    here = [*overrides, steps, f"paths.root={tmp_path / 'killed'}"]
    for number, pause in ((1, 0.3), (3, 0.05)):
        with started(*here) as process:
            wait_for(
                lambda n=number: len(list((tmp_path / "killed").rglob("part-*.npz"))) >= n, process
            )
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
    again = run_folder(execute(*here))
    same(again, whole)


def test_terminated_is_killed_and_goes_on(world, tmp_path):
    overrides, whole = world
    here = [*overrides, STEPS, f"paths.root={tmp_path}"]
    with started(*here) as process:
        wait_for(lambda: bool(list(tmp_path.rglob("part-*.npz"))), process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    (folder,) = (tmp_path / "outputs").iterdir()
    assert status_of(folder)["status"] == "killed"
    assert "Traceback" not in said
    stored = len(table(folder)) if (folder / "cases.csv").is_file() else 0
    assert stored < 18
    same(run_folder(execute(*here)), whole)
    assert status_of(folder)["status"] == "finished"


def test_a_run_that_another_process_works_on_is_refused(world, tmp_path):
    overrides, _ = world
    here = [*overrides, "attack.steps=200", f"paths.root={tmp_path}"]
    with started(*here) as process:
        wait_for(lambda: bool(list(tmp_path.rglob("plan.json"))), process)
        second = execute(*here)
        assert process.poll() is None, "the first run was too short for this test"
    assert second.returncode == 2
    (line,) = second.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert f"another process (pid {process.pid} on " in line
    assert line.endswith("is working on this run")
    assert status_of(folder_of(tmp_path))["status"] == "running"


def test_a_finished_run_started_again_computes_nothing(world):
    overrides, whole = world
    before = (whole / "cases.csv").read_bytes()
    parts = {p.name: p.stat().st_mtime_ns for p in (whole / "parts").iterdir()}
    root = f"paths.root={whole.parents[1]}"
    assert run_folder(execute(*overrides, STEPS, root)) == whole
    assert (whole / "cases.csv").read_bytes() == before
    assert {p.name: p.stat().st_mtime_ns for p in (whole / "parts").iterdir()} == parts


def test_a_full_disk_in_mid_run_is_one_line_and_keeps_what_was_done(world, tmp_path):
    """os.replace fails from the second part on; with space again, the run goes on."""
    overrides, whole = world
    here = [*overrides, STEPS, f"paths.root={tmp_path}"]
    full = (
        "import errno, os, sys\nreplace = os.replace\n"
        "def broken(source, target, **options):\n"
        "    if 'part-000001' in os.fspath(target):\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(target))\n"
        "    replace(source, target, **options)\n"
        "os.replace = broken\nfrom ecgadv.cli import main\nsys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", full, *command(*here)[2:]], capture_output=True, text=True, cwd=REPO,
        env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    errors = [row for row in result.stderr.splitlines() if row.startswith("error: ")]
    assert len(errors) == 1
    assert "part-000001.npz: cannot be written (No space left on device)" in errors[0]
    assert "Traceback" not in result.stderr
    (folder,) = (tmp_path / "outputs").iterdir()
    assert status_of(folder)["status"] == "failed"
    assert len(table(folder)) == 4
    same(run_folder(execute(*here)), whole)
