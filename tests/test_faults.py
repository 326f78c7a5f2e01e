"""Kills at random moments, damaged files, disks that turn read-only, clocks that turn back."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import types

import numpy as np
import pytest
from helpers import (
    execute,
    needs_patience,
    small_world,
    started,
    status_of,
    table,
    without_times,
)

from ecgadv import cli, config, store
from ecgadv.errors import ConfigError, StoreError
from ecgadv.store import FolderLock, RunStore

PLAN = {"identity": {"signature": "s"}, "size": 2, "chunks": [["a", "b"], ["c", "d"]]}


def fill(folder, chunks=(0, 1)):
    with RunStore(folder) as run:
        run.plan(PLAN)
        for number in chunks:
            rows = [
                {"case_id": case, "status": "ok", "success": True, "source": "A", "target": "N"}
                for case in PLAN["chunks"][number]
            ]
            run.add(number, rows, np.full((2, 50), number, np.float32), np.ones(2))
        run.export(final=True)


# --- damaged files --------------------------------------------------------------------------------


def test_no_flipped_byte_of_a_part_changes_a_result(tmp_path):
    """Wherever a byte of a part is flipped: it is read as it was, or set aside."""
    fill(tmp_path)
    file = tmp_path / "parts" / "part-000001.npz"
    whole = file.read_bytes()
    with RunStore(tmp_path) as run:
        rows, delta = run.parts[1].rows, run.parts[1].delta
    noticed = 0
    places = sorted({*range(0, len(whole), 11), *range(120), *range(len(whole) - 120, len(whole))})
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 0xFF
        file.write_bytes(spoilt)
        with RunStore(tmp_path) as run:
            if 1 in run.parts:
                assert run.parts[1].rows == rows, place
                np.testing.assert_array_equal(run.parts[1].delta, delta)
            else:
                assert [p.name for p in run.set_aside] == ["part-000001.corrupt"]
                noticed += 1
        assert sorted(run.parts)[0] == 0
    assert noticed > 0.5 * len(places)


def test_a_part_under_the_name_of_another_is_set_aside(tmp_path):
    fill(tmp_path)
    shutil.copy(tmp_path / "parts" / "part-000000.npz", tmp_path / "parts" / "part-000001.npz")
    with RunStore(tmp_path) as run:
        run.plan(PLAN)
        assert sorted(run.parts) == [0]
        assert [row["case_id"] for row in run.rows()] == ["a", "b"]


def test_failed_cases_are_tried_again(tmp_path):
    fill(tmp_path, chunks=(0,))
    with RunStore(tmp_path) as run:
        run.plan(PLAN)
        kept = {"source": "A", "target": "N", "status": "failed", "success": False}
        rows = [{"case_id": c, **kept} for c in "cd"]
        run.add(1, rows, np.zeros((0, 50)), np.zeros(0))
    with RunStore(tmp_path) as run:
        run.plan(PLAN)
        assert run.forget_failed() == 2
        assert sorted(run.parts) == [0]


# --- the disk -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB that can be made read-only, where this machine lets one be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_turns_read_only(small_disk):
    fill(small_disk / "run", chunks=(0,))
    before = (small_disk / "run" / "cases.csv").read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert (small_disk / "run" / "cases.csv").read_bytes() == before
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore(small_disk / "run").open()
    with pytest.raises(ConfigError, match="no permission to write"):
        config.compose_checked([f"paths.root={small_disk / 'new'}"])
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    fill(small_disk / "run", chunks=(1,))
    assert len(table(small_disk / "run")) == 4


def test_a_disk_that_is_full_of_others_files(small_disk):
    """The run says so, keeps what it had, and goes on once there is space."""
    fill(small_disk / "run", chunks=(0,))
    with contextlib.suppress(OSError), (small_disk / "others").open("wb", buffering=0) as file:
        while file.write(b"0" * 10_000) == 10_000:
            pass
    with RunStore(small_disk / "run") as run:
        assert sorted(run.parts) == [0]
        kept = {"source": "A", "target": "N", "status": "ok", "success": True}
        rows = [{"case_id": c, **kept} for c in "cd"]
        with pytest.raises(StoreError, match="No space left"):
            run.add(1, rows, np.zeros((2, 9000)), np.zeros(2))
    (small_disk / "others").unlink()
    fill(small_disk / "run", chunks=(1,))
    assert len(table(small_disk / "run")) == 4


# --- the clock ------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back(tmp_path, monkeypatch):
    """Nothing of a run hangs on the time of day: exports stay in order, a live run is known."""
    from ecgadv.tracking import upload

    now = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    fill(tmp_path / "run", chunks=(0,))
    fill(tmp_path / "run", chunks=(1,))
    assert [row["case_id"] for row in table(tmp_path / "run")] == list("abcd")
    (tmp_path / "run" / "status.json").write_text('{"status": "running"}')
    os.utime(tmp_path / "run" / "status.json", (4e9, 4e9))
    module = __import__("ecgadv.tracking.upload", fromlist=["_is_fresh"])
    assert not module._is_fresh(tmp_path / "run"), "its process is gone, whatever the file's date"
    with FolderLock(tmp_path / "run"):
        assert module._is_fresh(tmp_path / "run")
    assert callable(upload)


# --- at the same time -----------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A stand-in for ``ecgadv.tasks.attack``."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("ecgadv.tasks.attack")
    module.run = lambda cfg, folder: 0
    monkeypatch.setitem(__import__("sys").modules, "ecgadv.tasks.attack", module)
    monkeypatch.setattr("ecgadv.backend.configure", lambda name: None)
    return module


def test_the_same_sweep_started_twice_at_once_is_done_once(task, tmp_path, capsys):
    sweep = ["-m", "metric=l2,diff", "tracking=none"]
    folder = config.compose_checked(sweep).folder
    with FolderLock(folder, "this sweep"):
        assert cli.main(sweep) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{folder}: another process (pid {os.getpid()} on " in said[0]
    assert said[0].endswith("is working on this sweep")
    assert not list(folder.glob("*/status.json"))
    assert cli.main(sweep) == 0


@pytest.mark.parametrize("more", [["metric=l2"], ["-m", "metric=l2,diff"]])
def test_two_fresh_starts_in_the_same_moment_get_folders_of_their_own(
    task, tmp_path, monkeypatch, more
):
    argv = [*more, "resume=false", "tracking=none"]
    compose = config.compose_checked
    taken = []

    def and_another(arguments):
        composed = compose(arguments)
        if not taken:
            composed.folder.mkdir(parents=True)
            taken.append(composed.folder)
        return composed

    monkeypatch.setattr(config, "compose_checked", and_another)
    assert cli.main(argv) == 0
    assert not list(taken[0].iterdir())
    second = taken[0].with_name(f"{taken[0].name}-2")
    assert list(second.rglob("status.json"))


def test_a_refused_process_leaves_the_status_alone(task, tmp_path):
    """Before, between and after: the status is that of the process at work."""

    def refused(cfg, folder):
        with RunStore(folder):
            return 0

    task.run = refused
    folder = config.compose_checked(["tracking=none"]).folder
    with FolderLock(folder):
        assert cli.main(["tracking=none"]) == 2
        assert not (folder / "status.json").exists()
        (folder / "status.json").write_text('{"status": "killed", "message": "x"}')
        assert cli.main(["tracking=none"]) == 2
        assert status_of(folder)["status"] == "killed"


# --- kills at any moment --------------------------------------------------------------------------

KILLS = int(os.environ.get("ECGADV_KILLS", "20"))


@needs_patience
@pytest.mark.slow
def test_killed_at_random_moments_of_a_sweep(tmp_path):
    """SIGKILL at 20 random moments; every resumed sweep ends as the undisturbed one."""
    world = [*small_world(tmp_path / "world"), "batch_size=2", "attack.steps=60"]
    sweep = ["-m", *world, "metric=l2,diff"]
    began = time.monotonic()
    assert execute(*sweep, f"paths.root={tmp_path / 'whole'}", timeout=900).returncode == 0
    seconds = time.monotonic() - began
    whole = jobs(tmp_path / "whole")
    assert [len(table(f)) for f in whole] == [18, 18]
    moments = random.Random(5)
    kills, rounds = 0, 0
    while kills < KILLS:
        rounds += 1
        root = tmp_path / f"round{rounds}"
        here = [*sweep, f"paths.root={root}"]
        over = False
        while not over and kills < KILLS:
            with started(*here) as process:
                try:
                    process.wait(timeout=moments.uniform(0.1, 0.9) * seconds)
                    over = process.returncode == 0
                    assert over, process.stderr.read()[-2000:]
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
            for folder in jobs(root):
                names = [row["case_id"] for row in rows_on_disk(folder)]
                assert len(names) == len(set(names)), "a case is there twice"
        done = execute(*here, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
        for folder, other in zip(jobs(root), whole, strict=True):
            assert without_times(table(folder)) == without_times(table(other))
            ours, theirs = (f / "perturbations.npz" for f in (folder, other))
            assert ours.read_bytes() == theirs.read_bytes()
            assert status_of(folder)["status"] == "finished"
            assert not list(folder.rglob("*.partial"))
            assert not list(folder.rglob("*.corrupt"))
        print(f"{kills} kills in {rounds} sweeps of {seconds:.0f} s", flush=True)


def jobs(root):
    (sweep,) = (root / "multirun_outputs").iterdir() if root.is_dir() else (root,)
    return sorted(p.parent for p in sweep.glob("*/status.json"))


def rows_on_disk(folder):
    rows = []
    for file in store.part_files(folder).values():
        with np.load(file, allow_pickle=False) as part:
            rows += json.loads(str(part["rows"]))
    return rows
