"""A run that several machines share: put together it is the run that one machine does."""

import json
import shutil

import numpy as np
import pytest
from helpers import small_world, status_of, table, without_times

from ecgadv import cli, config, store
from ecgadv.errors import BusyError, ConfigError, StoreError
from ecgadv.store import FolderLock, RunStore

COMMON = ("batch_size=4", "attack.steps=4", "metric=diff")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Overrides of a small run, and that run done by one process."""
    folder = tmp_path_factory.mktemp("world")
    overrides = [*small_world(folder), *COMMON]
    root = folder / "whole"
    assert cli.main([*overrides, f"paths.root={root}"]) == 0
    return overrides, folder_in(root)


def folder_in(root):
    (folder,) = (root / "outputs").iterdir()
    return folder


def same(folder, whole):
    assert without_times(table(folder)) == without_times(table(whole))
    for name in ("perturbations.npz", "predictions.csv", "robustness.csv", "plan.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = (json.loads((f / "summary.json").read_text()) for f in (folder, whole))
    timed = {"seconds", "cases_per_second"}
    assert {k: v for k, v in ours.items() if k not in timed} == {
        k: v for k, v in theirs.items() if k not in timed
    }


def test_the_last_share_puts_the_run_together(world, tmp_path, capsys):
    overrides, whole = world
    here = [*overrides, f"paths.root={tmp_path}"]
    assert cli.main([*here, "shard=2/2"]) == 0
    folder = folder_in(tmp_path)
    assert folder.name == whole.name
    assert not (folder / "cases.csv").exists()
    assert len(table(folder / "shards" / "2-of-2")) == 8
    assert cli.main([*here, "shard=1/2"]) == 0
    same(folder, whole)
    assert status_of(folder)["status"] == "finished"
    assert (folder / "report.html").is_file()
    assert (folder / ".hydra" / "config.yaml").is_file()
    capsys.readouterr()
    # Without its shares the run is whole, and the ordinary command finds it finished.
    shutil.rmtree(folder / "shards")
    assert cli.main(here) == 0
    assert "nothing to do" in capsys.readouterr().err
    same(folder, whole)


def test_a_lost_share_is_done_by_the_ordinary_command(world, tmp_path, capsys):
    overrides, whole = world
    here = [*overrides, f"paths.root={tmp_path}"]
    assert cli.main([*here, "shard=3/4"]) == 0
    folder = folder_in(tmp_path)
    share = folder / "shards" / "3-of-4"
    part = next(iter(store.part_files(share).values()))
    stored = part.read_bytes()
    with FolderLock(share):
        assert cli.main(here) == 2
    said = capsys.readouterr().err
    assert "is working on shard 3/4 of this run" in said
    assert not (folder / "status.json").exists()
    assert cli.main(here) == 0
    assert (folder / "parts" / part.name).read_bytes() == stored
    same(folder, whole)


def test_shares_of_one_sweep(world, tmp_path):
    overrides, whole = world
    assert cli.main(["-m", *overrides, f"paths.root={tmp_path}", "shard=1/2,2/2"]) == 0
    same(folder_in(tmp_path), whole)


PLAN = {"identity": {"signature": "s"}, "size": 1, "precision": "float32", "chunks": [["a"], ["b"]]}


def add(folder, number, case, plan=PLAN):
    row = {"case_id": case, "status": "ok", "success": True, "source": "A", "target": "N"}
    with RunStore(folder) as run:
        run.plan(plan)
        run.add(number, [row], np.full((1, 3), number, np.float32), np.ones(1))


def test_shares_from_other_disks_are_put_together(tmp_path):
    """Each made where the others' folders are not, then copied into one."""
    for number, case in enumerate("ab"):
        disk = tmp_path / f"disk{number}"
        add(disk / "shards" / f"{number + 1}-of-2", number, case)
        shutil.copytree(disk / "shards", tmp_path / "run" / "shards", dirs_exist_ok=True)
    with RunStore(tmp_path / "run") as run:
        assert run.plan(PLAN | {"size": 7}) == PLAN
        assert [row["case_id"] for row in run.rows()] == ["a", "b"]
        run.export(final=True)
    assert store.load_run(tmp_path / "run").delta[:, 0].tolist() == [0, 1]


def test_shares_that_were_cut_otherwise_are_refused(tmp_path):
    add(tmp_path / "run" / "shards" / "1-of-2", 0, "a")
    other = PLAN | {"size": 2, "chunks": [["a", "b"]]}
    (tmp_path / "run" / "shards" / "2-of-2").mkdir()
    (tmp_path / "run" / "shards" / "2-of-2" / "plan.json").write_text(json.dumps(other))
    with RunStore(tmp_path / "run") as run, pytest.raises(StoreError, match="cut its work other"):
        run.plan(PLAN)
    with (
        RunStore(tmp_path / "run" / "shards" / "2-of-2") as run,
        pytest.raises(StoreError, match="another configuration"),
    ):
        run.plan(PLAN | {"identity": {"signature": "t"}})


def test_the_first_share_to_start_cuts_the_work_for_all(tmp_path):
    with RunStore(tmp_path / "shards" / "2-of-2") as run:
        assert run.plan(PLAN) == PLAN
    with RunStore(tmp_path / "shards" / "1-of-2") as run:
        assert run.plan(PLAN | {"size": 9, "chunks": []}) == PLAN


def test_a_damaged_part_of_a_share_is_not_taken_over(tmp_path):
    share = tmp_path / "shards" / "1-of-1"
    add(share, 0, "a")
    add(share, 1, "b")
    files = store.part_files(share)
    files[0].write_bytes(files[0].read_bytes()[:-50])
    names = ['"b"'.encode("utf-32-le"), '"c"'.encode("utf-32-le")]
    assert names[0] in files[1].read_bytes()
    files[1].write_bytes(files[1].read_bytes().replace(*names))
    with RunStore(tmp_path) as run:
        run.plan(PLAN)
        assert run.parts == {}
        assert sorted(p.name for p in run.set_aside) == [
            "part-000000.corrupt", "part-000001.corrupt"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["shard=0/2"], "shard=0/2: must be I/N, share I of N, such as 1/4, or null"),
        (["shard=3/2"], "shard=3/2: must be I/N"),
        (["shard=2"], "shard=2: must be I/N"),
        (["shard=1/2", "resume=false"], "shard=1/2 resume=false: all shards share one folder"),
        (["shard=1/2", "task=train"], "shard=1/2 task=train: only task=attack can be split"),
        (["shard=1/2", "hydra.run.dir=x"], "shard=1/2 hydra.run.dir=…: all shards share one"),
    ],
)
def test_a_share_that_makes_no_sense_is_one_line(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config.compose_checked(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_share_is_no_other_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, share = (config.compose_checked(a) for a in ([], ["shard=2/3"]))
    assert share.signature == whole.signature
    assert share.folder == whole.folder / "shards" / "2-of-3"


def test_a_folder_lock_names_its_owner(tmp_path):
    with (
        FolderLock(tmp_path, "this sweep"),
        pytest.raises(BusyError, match=r"\(pid \d+ on .+, since 2.*\) is working on this sweep"),
    ):
        FolderLock(tmp_path, "this sweep").acquire()
    assert not FolderLock(tmp_path).is_taken()
    with FolderLock(tmp_path):
        assert FolderLock(tmp_path).is_taken()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """An owner's file stands in; that of a process which is gone is no obstacle."""
    import subprocess
    import sys

    import filelock

    class Without(filelock.FileLock):
        def _acquire(self):
            raise NotImplementedError("no flock here")

    monkeypatch.setattr(filelock, "FileLock", Without)
    with FolderLock(tmp_path), pytest.raises(BusyError):
        FolderLock(tmp_path).acquire()
    code = (
        "import os, sys, filelock\n"
        "lock = filelock.SoftFileLock(sys.argv[1])\nlock.acquire()\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / ".lock.soft")], check=False)
    assert (tmp_path / ".lock.soft").exists()
    with FolderLock(tmp_path):
        pass
