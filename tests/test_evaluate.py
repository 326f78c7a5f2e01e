"""``task=evaluate`` and the deployments of the first threat model."""

import csv
import json

import numpy as np
import pytest
from helpers import in_process, random_network, small_world, table

from ecgadv.evaluate.statistics import wilson

pytestmark = pytest.mark.slow

COLUMNS = [
    "perturbation_case", "victim_record", "source", "target", "same_record", "n_shifts", "hits_A",
    "hits_N", "hits_O", "hits_noise", "success_rate", "made_from", "n_clean", "n_success",
]  # fmt: skip


def evaluation(folder):
    with (folder / "evaluation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    overrides = small_world(folder)
    root = f"paths.root={folder}"
    code, run = in_process(*overrides, "attack.steps=25", "selection.per_class=1", root)
    assert code == 0
    return folder, overrides, run


def judge(attacked, root, *more):
    _, overrides, run = attacked
    kept = [o for o in overrides if not o.startswith(("selection", "data"))]
    return in_process("task=evaluate", f"evaluate.run={run}", *kept, *more, f"paths.root={root}")


def test_the_same_victim_judges_as_the_run_did(attacked, tmp_path, capsys):
    _, _, run = attacked
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    code, folder = judge(attacked, tmp_path)
    assert code == 0
    rows, cases = evaluation(folder), table(run)
    assert list(rows[0]) == COLUMNS
    assert [row["perturbation_case"] for row in rows] == [row["case_id"] for row in cases]
    letters = {"A": "hits_A", "N": "hits_N", "O": "hits_O", "~": "hits_noise"}
    for row, case in zip(rows, cases, strict=True):
        assert row["victim_record"] == case["record"]
        assert row["same_record"] == "true"
        assert row["n_shifts"] == "1"
        assert row[letters[case["predicted"]]] == "1"
        assert sum(int(row[c]) for c in letters.values()) == 1
        assert row["n_clean"] == "1"
        assert row["success_rate"] == row["n_success"] == str(int(case["success"] == "true"))
    summary = json.loads((folder / "summary.json").read_text())
    won = sum(case["success"] == "true" for case in cases)
    assert summary["n_success"] == won > 0
    assert summary["n_cases"] == len(cases)
    assert summary["ci95"] == pytest.approx(wilson(won, len(cases)), abs=1e-6)
    assert summary["evaluated"]["folder"] == str(run)
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before
    assert f"success {won}/{len(cases)}" in capsys.readouterr().err


def test_another_victim_judges_for_itself(attacked, tmp_path):
    other = random_network(9000, seed=40)
    other.model.save(tmp_path / "other.keras")
    code, folder = judge(attacked, tmp_path, f"victim.path={tmp_path / 'other.keras'}")
    assert code == 0
    from ecgadv.store import load_run

    run = load_run(attacked[2])
    logits = other.pipeline(run.x.astype(np.float64) + run.delta, run.lengths)
    columns = ["hits_A", "hits_N", "hits_O", "hits_noise"]
    read = [[int(row[c]) for c in columns].index(1) for row in evaluation(folder)]
    np.testing.assert_array_equal(read, logits.argmax(1))


def test_a_device_reads_from_many_onsets(attacked, tmp_path):
    code, folder = judge(attacked, tmp_path, "deployment=local", "evaluation.shifts=7")
    assert code == 0
    for row in evaluation(folder):
        hits = [int(row[c]) for c in COLUMNS[6:10]]
        assert row["n_shifts"] == "7"
        assert sum(hits) == 7
        won, clean = int(row["n_success"]), int(row["n_clean"])
        assert won <= min(clean, hits["ANO~".index(row["target"])])
        assert (
            row["success_rate"] == ""
            if clean == 0
            else float(row["success_rate"]) == pytest.approx(won / clean)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "evaluate.run=FOLDER"),
        (["evaluate.run={folder}"], "not the folder of a run"),
        (["evaluate.run={run}", "victim=keras", "victim.path={short}"], "reads 600 samples"),
        (
            [
                "evaluate.run={run}",
                "victim=keras",
                "victim.path={short}",
                "victim.classes=[A,N,X,Y]",
            ],
            "reads 600 samples",
        ),
    ],
)
def test_what_cannot_be_judged_is_one_line(attacked, tmp_path, capsys, options, message):
    from ecgadv import cli

    random_network(600).model.save(tmp_path / "short.keras")
    places = {"folder": tmp_path, "run": attacked[2], "short": tmp_path / "short.keras"}
    capsys.readouterr()
    filled = [option.format(**places) for option in options]
    code = cli.main(["task=evaluate", "tracking=none", f"paths.root={tmp_path}", *filled])
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    # Nothing of a refused evaluation is left but its folder's status.
    assert not list(tmp_path.glob("outputs/*/config.json"))


def test_another_victim_does_not_judge_into_the_same_folder(attacked, tmp_path, capsys):
    """A victim of the user's own code: its place stays, its weights do not."""
    from ecgadv.store.identity import IDENTITY

    code, folder = judge(attacked, tmp_path)
    assert code == 0
    stored = json.loads((folder / IDENTITY).read_text())
    assert len(stored["victim"]) == 64
    (folder / IDENTITY).write_text(json.dumps(stored | {"victim": "0" * 64}))
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    code, _ = judge(attacked, tmp_path)
    assert code == 2
    assert "the victim differs" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_editing_for_a_device_of_unknown_onset(attacked, tmp_path):
    """type1 with deployment=local and eot=shift: a success is a rate of at least one half."""
    _, overrides, _ = attacked
    options = [
        *overrides, "deployment=local", "eot=shift", "eot.shifts=4", "evaluation.shifts=60",
        "selection.per_class=1", "target=O", "attack.steps=30", f"paths.root={tmp_path}",
    ]  # fmt: skip
    code, run = in_process(*options)
    assert code == 0
    rows = table(run)
    assert rows
    kept = [o for o in overrides if not o.startswith(("selection", "data"))]
    code, again = in_process(
        "task=evaluate", f"evaluate.run={run}", *kept, "deployment=local",
        "evaluation.shifts=200", f"paths.root={tmp_path / 'again'}",
    )  # fmt: skip
    assert code == 0
    # A record that the device reads as its class at fewer than half of the onsets is no case.
    attacked_rows = [row for row in rows if row["status"] == "ok"]
    assert {row["status"] for row in rows} <= {"ok", "skipped"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["n_skipped"] == len(rows) - len(attacked_rows)
    assert summary["n_cases"] == len(attacked_rows)
    assert all(row["n_gradients"] == "120" for row in attacked_rows)
    for case, judged in zip(attacked_rows, evaluation(again), strict=True):
        rate = float(judged["success_rate"])
        if case["success"] == "true":
            assert case["predicted"] == case["target"]
            # Sixty onsets then, two hundred others now.
            assert rate >= 0.3
        else:
            assert rate <= 0.7
    assert any(row["success"] == "true" for row in rows)
