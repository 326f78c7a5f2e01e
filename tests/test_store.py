"""What a run leaves on disk: whole files or none, and nothing lost when the disk is full."""

import csv
import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import REPO

import ecgadv
from ecgadv import store
from ecgadv.errors import StoreError
from ecgadv.evaluate.tables import Table
from ecgadv.store import CASE_COLUMNS, CASES, RunStore, load_run, write_atomic, write_csv

N = 200
CONTRACT = [
    "case_id", "record", "source", "target", "predicted", "success", "p_target", "margin", "d_l2",
    "d_smooth", "d_smooth_l2", "l2_norm", "linf", "snr_db", "prd_percent", "n_gradients",
    "n_forwards", "seconds", "status", "message", "split",
]  # fmt: skip


def rows_of(chunk, count=2, status="ok"):
    return [
        {
            "case_id": f"R{chunk}{i}_A_to_N", "record": f"R{chunk}{i}", "source": "A",
            "target": "N", "predicted": "N", "success": i == 0, "p_target": 0.5 + 0.1 * i,
            "margin": 0.25, "d_l2": 1 / 3, "d_smooth": 2.0, "d_smooth_l2": 2.01, "l2_norm": 1.0,
            "linf": 0.1, "snr_db": 30.0, "prd_percent": 3.0, "n_gradients": 100, "n_forwards": 10,
            "seconds": 0.5, "status": status, "message": "", "split": "heldout",
        }
        for i in range(count)
    ]  # fmt: skip


def arrays(chunk, count=2):
    rng = np.random.default_rng(chunk)
    return rng.normal(size=(count, N)).astype(np.float32), np.full(count, 0.2, np.float32)


def fill(folder: Path, chunks=(0, 1)) -> None:
    with RunStore(folder) as run:
        for chunk in chunks:
            run.add(chunk, rows_of(chunk), *arrays(chunk))
        run.export(final=True)


def read(folder):
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- files of the contract ------------------------------------------------------------------------


def test_columns_are_those_of_the_contract_in_order(tmp_path):
    fill(tmp_path)
    header = (tmp_path / "cases.csv").read_text().splitlines()[0].split(",")
    assert header[: len(CONTRACT)] == CONTRACT
    assert list(CASE_COLUMNS)[: len(CONTRACT)] == CONTRACT
    first = read(tmp_path)[0]
    assert first["success"] == "true"
    assert read(tmp_path)[1]["success"] == "false"
    assert float(first["d_l2"]) == pytest.approx(1 / 3, rel=1e-8)


def test_perturbations_need_no_pickle(tmp_path):
    fill(tmp_path)
    with np.load(tmp_path / "perturbations.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {"case_id", "delta", "scale_mv"}
        assert stored["case_id"].tolist() == [r["case_id"] for r in read(tmp_path)]
        assert stored["case_id"].dtype.kind == "U"
        assert stored["delta"].dtype == stored["scale_mv"].dtype == np.float32
        np.testing.assert_array_equal(stored["delta"][:2], arrays(0)[0])


def test_only_ok_cases_have_a_perturbation(tmp_path):
    with RunStore(tmp_path) as run:
        run.add(0, rows_of(0), *arrays(0))
        broken = [
            {k: r[k] for k in ("case_id", "record", "source", "target")}
            | {"success": False, "status": "failed", "message": 'out, of "memory"\nhere'}
            for r in rows_of(1)
        ]
        run.add(1, broken, np.zeros((0, N)), np.zeros(0))
        run.export(final=True)
    found = read(tmp_path)
    assert [row["status"] for row in found] == ["ok", "ok", "failed", "failed"]
    assert found[2]["d_l2"] == ""
    assert found[2]["message"] == 'out, of "memory"\nhere'
    loaded = load_run(tmp_path)
    assert len(loaded.delta) == 2
    assert len(loaded.cases) == 4
    with RunStore(tmp_path) as run, pytest.raises(StoreError, match="2 ok cases, 1 pert"):
        run.add(2, rows_of(2), *arrays(2, 1))


def test_a_run_without_any_perturbation_can_be_read(tmp_path):
    with RunStore(tmp_path) as run:
        run.export(final=True)
    assert load_run(tmp_path).case_ids.tolist() == []


def test_rows_come_in_the_order_of_chunks(tmp_path):
    with RunStore(tmp_path) as run:
        for chunk in (2, 0, 1):
            run.add(chunk, rows_of(chunk), *arrays(chunk))
        run.export(final=True)
    names = [row["case_id"] for row in read(tmp_path)]
    assert names == sorted(names)
    assert load_run(tmp_path).case_ids.tolist() == names


# --- resuming -------------------------------------------------------------------------------------


def test_a_second_start_finds_what_the_first_stored(tmp_path):
    fill(tmp_path, chunks=(0,))
    (tmp_path / "parts" / ".part-000001.npz.77.partial").write_bytes(b"half")
    (tmp_path / ".cases.csv.77.partial").write_bytes(b"half")
    with RunStore(tmp_path) as run:
        assert sorted(run.parts) == [0]
        assert run.rows() == rows_of(0)
        np.testing.assert_array_equal(run.parts[0].delta, arrays(0)[0])
        assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_part_is_set_aside_and_done_again(tmp_path, damage):
    fill(tmp_path)
    part = tmp_path / "parts" / "part-000001.npz"
    content = part.read_bytes()
    if damage == "other":
        with part.open("wb") as file:
            np.savez(file, nonsense=np.zeros(3))
    else:
        part.write_bytes({"cut": content[:-200], "empty": b"", "text": b"no zip"}[damage])
    with RunStore(tmp_path) as run:
        assert sorted(run.parts) == [0]
        run.add(1, rows_of(1), *arrays(1))
        run.export(final=True)
    assert part.with_suffix(".corrupt").is_file()
    assert part.read_bytes() == content
    assert len(read(tmp_path)) == 4


def test_a_part_with_a_pickle_is_not_opened(tmp_path):
    fill(tmp_path, chunks=(0,))

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    with (tmp_path / "parts" / "part-000000.npz").open("wb") as file:
        np.savez(file, rows=np.array([Bomb()], dtype=object), case_id=np.zeros(0, "U1"),
                 delta=np.zeros((0, N)), scale_mv=np.zeros(0))  # fmt: skip
    with RunStore(tmp_path) as run:
        assert run.parts == {}
    assert not (tmp_path / "exploded").exists()


def test_the_first_plan_stays(tmp_path):
    first = {"identity": {"signature": "a"}, "size": 8, "chunks": [["x"]]}
    with RunStore(tmp_path) as run:
        assert run.plan(first) == first
        assert run.plan(first | {"size": 3, "chunks": []}) == first
        with pytest.raises(StoreError, match="another configuration, data set, victim or version"):
            run.plan(first | {"identity": {"signature": "b"}})
        (tmp_path / "plan.json").write_text("{half")
        with pytest.raises(StoreError, match=r"plan\.json: damaged"):
            run.plan(first)


def test_a_second_process_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ecgadv.store import RunStore\n"
        "from ecgadv.errors import StoreError\n"
        "try:\n    RunStore(Path(sys.argv[1])).open()\n"
        "except StoreError as error:\n    print(error); sys.exit(3)"
    )
    with RunStore(tmp_path):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=REPO,
            timeout=60, check=False,
        )  # fmt: skip
    assert other.returncode == 3, other.stderr
    said = other.stdout.strip()
    assert said.startswith(f"{tmp_path}: another process (pid {os.getpid()} on ")
    assert said.endswith(") is working on this run")
    with RunStore(tmp_path):
        pass


# --- the disk -------------------------------------------------------------------------------------


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, where):
    fill(tmp_path, chunks=(0,))
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    with RunStore(tmp_path) as run:
        with monkeypatch.context() as patch:
            patch.setattr(store.os, where, no_space)
            with pytest.raises(StoreError, match=r"cannot be written \(No space left") as caught:
                run.add(1, rows_of(1), *arrays(1))
            assert "\n" not in str(caught.value)
            with pytest.raises(StoreError, match="cannot be written"):
                run.export(final=True)
        assert sorted(run.parts) == [0]
        after = {p.name: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
        assert {k: v for k, v in after.items() if k != ".lock.by"} == {
            k: v for k, v in before.items() if k != ".lock.by"
        }
        run.add(1, rows_of(1), *arrays(1))
        run.export(final=True)
    assert len(read(tmp_path)) == 4


def test_a_really_full_disk(tmp_path):
    """A file system of 256 kB, where this machine lets one be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        kept = 0
        with RunStore(place / "run") as run:
            big = np.ones((20, N), np.float32), np.ones(20, np.float32)

            def until_full() -> None:
                nonlocal kept
                for chunk in range(100):
                    run.add(chunk, rows_of(chunk, 20), *big)
                    kept += 1

            with pytest.raises(StoreError, match=r"cannot be written \(No space left"):
                until_full()
        assert kept >= 2
        with RunStore(place / "run") as run:
            assert sorted(run.parts) == list(range(kept))
        assert not list((place / "run").rglob("*.partial"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunStore(tmp_path / "file" / "run").open()


def test_a_reader_never_sees_half_a_file(tmp_path):
    """Many replacements while another process reads: always the old or the new content."""
    file = tmp_path / "a.txt"
    write_atomic(file, "0" * 100_000)
    code = (
        "import sys; from pathlib import Path\n"
        "seen = set()\n"
        "while len(seen) < 3:\n"
        "    text = Path(sys.argv[1]).read_text()\n"
        "    assert len(text) == 100_000 and len(set(text)) == 1, len(text)\n"
        "    seen.add(text[0])\n"
    )
    reader = subprocess.Popen([sys.executable, "-c", code, str(file)])
    for turn in range(4000):
        write_atomic(file, str(turn % 10) * 100_000)
        if reader.poll() is not None:
            break
    assert reader.wait(timeout=60) == 0


def test_cells_as_text(tmp_path):
    kinds = dict.fromkeys("ab", bool) | {"c": str} | dict.fromkeys("de", float) | {"f": int}
    table = Table(kinds, empty=frozenset("abcf"))
    row = {"a": True, "b": np.bool_(False), "c": None, "d": 1 / 3, "e": np.float32(0.5), "f": 3}
    write_csv(tmp_path / "t.csv", [row, {"d": float("nan"), "e": 1}], table)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines == ["a,b,c,d,e,f", "true,false,,0.333333333,0.5,3", ",,,nan,1,"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"margni": 0.1}, "no such column: margni"), ({"margin": "wide"}, "margin='wide' is no float"),
     ({"success": None}, "column success is empty"), ({"success": 1}, "success=1 is no bool"),
     ({"evaluation": []}, "no such column: evaluation")],
)  # fmt: skip
def test_a_row_that_is_none_of_the_table_is_refused_before_anything_is_written(
    tmp_path, change, message
):
    (row,) = rows_of(0, 1)
    with RunStore(tmp_path) as run, pytest.raises(ValueError, match=message):
        run.add(0, [row | change], *arrays(0, 1))
    assert not list((tmp_path / "parts").iterdir())
    del row["status"]
    with pytest.raises(ValueError, match="row R00_A_to_N: column status is empty"):
        CASES.text([row])


def test_texts_stay_texts_and_empty_numbers_are_missing(tmp_path):
    rows = [row | {"record": name} for row, name in zip(rows_of(0), ("007", "nan"), strict=True)]
    rows[1] |= {"margin": None, "message": "NA"}
    write_csv(tmp_path / "cases.csv", rows, CASES)
    read = CASES.frame(tmp_path / "cases.csv")
    assert read["record"].tolist() == ["007", "nan"]
    assert read["message"].tolist() == ["", "NA"]
    assert read["margin"].isna().tolist() == [False, True]
    assert read["d_l2"].tolist() == [0.333333333] * 2


def test_rows_of_a_version_that_kept_other_tables_inside_them_are_read(tmp_path):
    held = {
        "evaluation": [{"perturbation_case": "R00_A_to_N", "victim_record": "R00"}],
        "shifts": [{"perturbation_case": "R00_A_to_N", "onset": k} for k in (3, 9)],
        "history": [[1, 0.7], [5, 0.25]],
    }
    rows = rows_of(0)
    old = [rows[0] | held, rows[1]]
    delta, scale = arrays(0)
    (tmp_path / "parts").mkdir()
    np.savez(
        tmp_path / "parts" / "part-000000.npz", rows=np.array(json.dumps(old)), delta=delta,
        case_id=np.array([row["case_id"] for row in rows]), scale_mv=scale,
    )  # fmt: skip
    with RunStore(tmp_path) as run:
        run.add(1, rows_of(1), *arrays(1))
        assert run.rows() == rows + rows_of(1)
        beside = run.beside()
        run.keep(2, replace(run.parts[0], rows=rows_of(2)))
    assert (beside.evaluation, beside.shifts) == (held["evaluation"], held["shifts"])
    assert beside.history == [
        {"case_id": "R00_A_to_N", "iteration": 1, "loss": 0.7},
        {"case_id": "R00_A_to_N", "iteration": 5, "loss": 0.25},
    ]
    with RunStore(tmp_path) as again:
        assert again.beside().shifts == 2 * held["shifts"]


# --- reading --------------------------------------------------------------------------------------


def test_a_run_is_read_back(tmp_path):
    fill(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"n_cases": 4}))
    run = ecgadv.load_run(str(tmp_path))
    assert run.folder == tmp_path.resolve()
    assert run.summary == {"n_cases": 4}
    assert run.config == {}
    assert run.cases["success"].tolist() == [True, False, True, False]
    assert run.cases["d_l2"].dtype == float
    assert run.delta.shape == (4, N)
    assert run.scale_mv.tolist() == pytest.approx([0.2] * 4)


def test_perturbations_are_read_where_they_are_looked_at(tmp_path):
    fill(tmp_path)
    whole, mapped = load_run(tmp_path), load_run(tmp_path, mapped=True)
    assert isinstance(mapped.delta, np.memmap)
    np.testing.assert_array_equal(mapped.delta, whole.delta)
    mapped.delta[0] = 0
    assert load_run(tmp_path).delta[0].any()
    np.savez_compressed(
        tmp_path / "perturbations.npz", case_id=whole.case_ids, delta=whole.delta,
        scale_mv=whole.scale_mv,
    )  # fmt: skip
    np.testing.assert_array_equal(load_run(tmp_path, mapped=True).delta, whole.delta)


def test_recordings_of_a_run_are_read_from_their_source(tmp_path, monkeypatch):
    from ecgadv.records import synthetic

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
    records = synthetic.load(per_class=1)
    names = [records.ids[i] for i in (2, 0)]
    with RunStore(tmp_path) as run:
        rows = [r | {"record": n} for r, n in zip(rows_of(0), names, strict=True)]
        run.add(0, rows, np.zeros((2, 9000), np.float32), np.ones(2))
        run.export(final=True)
        run.write_json(
            "config.json",
            {"data": {"name": "synthetic", "_target_": "ecgadv.records.synthetic.load",
                      "per_class": 1}},
        )  # fmt: skip
        run.write_json("summary.json", {"data": {"digest": records.digest}})
    loaded = load_run(tmp_path)
    expected = records.batch([2, 0])
    np.testing.assert_array_equal(loaded.x, expected.x)
    np.testing.assert_array_equal(loaded.lengths, expected.lengths)
    (tmp_path / "summary.json").write_text(json.dumps({"data": {"digest": "0" * 64}}))
    with pytest.raises(StoreError, match="have changed since this run"):
        _ = load_run(tmp_path).x


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "cases.csv").unlink(), "not the folder of a run"),
        (lambda f: (f / "perturbations.npz").unlink(), "start the run again to resume it"),
        (lambda f: (f / "perturbations.npz").write_bytes(b"x"), "perturbations.npz is damaged"),
        (lambda f: (f / "perturbations.npz").write_bytes(b""), "perturbations.npz is damaged"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json: damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: damaged"),
    ],
    ids=["no cases", "no perturbations", "no zip", "empty", "half a summary", "a list"],
)
def test_a_damaged_run_is_one_line(tmp_path, spoil, message):
    fill(tmp_path)
    spoil(tmp_path)
    with pytest.raises(StoreError, match=message) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_that_lost_a_part_ends_in_the_same_tables(tmp_path):
    """Parts keep the rows of every table: what is resumed is written as if nothing was lost."""
    from helpers import in_process, small_world, table, without_times

    world = [
        *small_world(tmp_path / "world", records=5), f"paths.root={tmp_path}", "batch_size=2",
        "threat_model=type2", "attack.steps=6", "eot.shifts=2", "evaluation.shifts=5",
        "target=untargeted",
    ]  # fmt: skip
    code, folder = in_process(*world)
    assert code == 0
    names = ("evaluation.csv", "shifts.csv", "history.csv", "perturbations.npz")
    whole = {name: (folder / name).read_bytes() for name in names}
    cases = without_times(table(folder))
    for name in (*names, "cases.csv", "summary.json"):
        (folder / name).unlink()
    (folder / "parts" / "part-000001.npz").unlink()
    assert in_process(*world) == (0, folder)
    assert {name: (folder / name).read_bytes() for name in names} == whole
    assert without_times(table(folder)) == cases
