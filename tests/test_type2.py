"""Type II end to end: protocol, files, resuming, a second evaluation, and the Python interface."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

import ecgadv
from ecgadv import config
from ecgadv.errors import ConfigError, DataError
from ecgadv.evaluate.trials import (
    rates,
    summarise_evaluation,
    trial_row,
    trial_table,
)
from ecgadv.report import study
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Judge, trial_of
from ecgadv.tasks import attack, evaluate
from ecgadv.threat.channel import Channel, Views
from ecgadv.threat.front_ends import Butterworth
from ecgadv.threat.goals import UNTARGETED
from ecgadv.threat.transforms import shift
from ecgadv.victims.loading import Victim

QUICK = (
    "threat_model=type2", "target=N", "selection.source=[A]", "attack.steps=3", "eot.shifts=2",
    "evaluation.shifts=6", "evaluation.max_records=2", "tracking=none",
)  # fmt: skip


# --- the protocol ---------------------------------------------------------------------------------


def arriving(channel, x, p, span, onsets):
    """What arrives of one recording, (K, leads·n)."""
    x, p = (None if row is None else row[None] for row in (x, p))
    return channel.arrive(x, p, Views(0 * onsets[None], onsets[None]), np.array([span]))[0]


def moved(p, onsets):
    return shift(p[None], np.asarray(onsets)[None])[0]


def test_what_arrives_is_shifted_then_filtered_or_the_other_way_round():
    p = np.random.default_rng(0).normal(size=9000)
    device = Butterworth(high_pass=0.05, mains=(60, 50))
    onsets, zero = np.array([0, 4000]), np.zeros(9000)
    usual = arriving(Channel(True, True, 9000, device), zero, p, 9000, onsets)
    np.testing.assert_allclose(usual, device.array(moved(p, onsets)))
    channel = Channel(True, True, 9000, device, "filter_shift")
    other = arriving(channel, zero, p, 9000, onsets)
    np.testing.assert_allclose(other, moved(device.array(p), onsets))
    np.testing.assert_allclose(usual[0], other[0])
    assert np.abs(usual[1] - other[1]).max() > 0.1


def test_an_edited_recording_arrives_from_another_onset_within_its_own_samples():
    x = np.arange(10.0)
    x[8:] = 0
    rolled = arriving(Channel(moving=True), x, np.ones(10), 8, np.array([0, 3]))
    np.testing.assert_array_equal(rolled[0, :8], np.arange(1.0, 9.0))
    np.testing.assert_array_equal(rolled[1, :8], [4, 5, 6, 7, 8, 1, 2, 3])
    leads = arriving(Channel(moving=True, leads=2), np.r_[x, -x], None, 8, np.array([3]))
    np.testing.assert_array_equal(leads[0, :8], [3, 4, 5, 6, 7, 0, 1, 2])
    np.testing.assert_array_equal(leads[0, 10:], -leads[0, :10])


def test_a_reading_is_standardised_after_the_sum():
    seen = []

    def forward(x):
        seen.append(np.asarray(x)[..., 0])
        return x[:, :4, 0]

    victim = Victim(forward, name="mirror", n=64)
    rng = np.random.default_rng(1)
    x, p = rng.normal(size=64), 5 * rng.normal(size=64)
    victim._compiled = victim.forward
    Judge(victim, Channel(True, True, 64)).read(x, p, 64, np.array([0, 7]))
    read = seen[0][:2]
    np.testing.assert_allclose(read.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(read.std(1), 1, atol=1e-6)
    sums = x + moved(p, [0, 7])
    expected = (sums - sums.mean(1, keepdims=True)) / sums.std(1, keepdims=True)
    np.testing.assert_allclose(read, expected, atol=1e-5)


def test_onsets_of_the_judge_fit_the_window_and_come_from_the_seed_and_the_record():
    victim = Victim(lambda x: x, name="v", n=9000)
    judge = Judge(victim, Channel(True, True, 3000), shifts=500)
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, 9000)).astype(np.float32)
    onsets = judge.onsets(x, 1, 9000)
    assert onsets.min() >= 0
    assert 5500 < onsets.max() <= 6000
    # Rounding of another processor changes nothing; another record, target or seed does.
    np.testing.assert_array_equal(onsets, judge.onsets(x * np.float32(1 + 1e-7), 1, 9000))
    assert (onsets != judge.onsets(other, 1, 9000)).any()
    assert (onsets != judge.onsets(x, 2, 9000)).any()
    assert (onsets != judge.onsets(x, 1, 9000, other)).any()
    assert (onsets != Judge(victim, judge.channel, shifts=500, seed=1).onsets(x, 1, 9000)).any()


def at(*classes, gap=9.0):
    """Logits that name these classes by ``gap``."""
    return gap * np.eye(4)[list(classes)]


def test_rows_count_the_readings_of_every_class():
    classes = ("A", "N", "O", "~")
    spec = CaseSpec("R1", 0, "A", "N")
    read = [0] + 6 * [1] + 2 * [2] + [3]
    trial = trial_of(at(0), at(*read), 0, 1)
    row = trial_row(classes, spec, "R2", "A", False, trial)
    assert [row[c] for c in trial_table().columns] == [
        "R1_A_to_N", "R2", "A", "N", False, 10, 1, 6, 2, 1, 0.6, "A", 10, 6
    ]  # fmt: skip
    away = trial_of(at(0), at(*read), 0, UNTARGETED)
    row = trial_row(classes, CaseSpec("R1", 0, "A", ANY), "R2", "A", False, away)
    assert row["success_rate"] == 0.9
    # Readings of the unperturbed recording that are wrong do not count; all of them are shown.
    some = trial_of(at(*[1] * 4, *[0] * 6), at(*read), 0, 1)
    assert (some.n_shifts, some.n_clean, some.n_success) == (10, 6, 3)
    assert (some.exists, some.rate, some.success) == (True, 0.5, True)
    none = trial_row(classes, spec, "R2", "A", False, trial_of(at(1), at(*read), 0, 1))
    assert (none["n_clean"], none["n_success"], none["success_rate"]) == (0, 0, None)


def test_a_case_succeeds_where_half_of_the_readings_do():
    logits = at(0, 1, 1, 2)
    verdict = trial_of(at(0), logits, 0, 1)
    assert (verdict.predicted, verdict.success, verdict.rate) == (1, True, 0.5)
    verdict = trial_of(at(0), logits, 0, 2)
    assert (verdict.success, verdict.rate) == (False, 0.25)
    assert trial_of(at(0), logits, 0, UNTARGETED).rate == 0.75
    # The margin of every success is asked for at every onset.
    assert trial_of(at(0), at(0, 1, 1, 2, gap=1e-4), 0, 1).rate == 0.0
    assert trial_of(at(0), logits, 0, 1, finite=False).rate == 0.0
    assert trial_of(at(0), np.where(logits > 0, np.nan, logits), 0, 1).rate == 0.0


def test_a_case_that_is_free_is_none():
    """Read as its source at fewer than half of the onsets: nothing to attack."""
    before = at(0, 1, 1)
    free = trial_of(before, at(1, 1, 1), 0, 1)
    assert (free.n_clean, free.n_success, free.rate) == (1, 1, 1.0)
    assert not free.exists
    assert not free.success


def rows_of(table, same=False, shifts=100):
    return [
        {
            "perturbation_case": f"p{case}", "victim_record": f"r{case if same else record}",
            "source": "A", "target": "N", "made_from": "A", "same_record": same,
            "n_shifts": shifts, "success_rate": rate,
        }
        for case, line in enumerate(table)
        for record, rate in enumerate(line)
    ]  # fmt: skip


def test_intervals_over_trials_are_wilsons_and_over_records_are_wider():
    rng = np.random.default_rng(0)
    table = rng.choice([0.0, 1.0], size=(1, 40), p=[0.3, 0.7])
    found = rates(rows_of(table))
    wilson = binomtest(found["n_hits"], 4000).proportion_ci(method="wilson")
    assert found["ci95_trials"] == pytest.approx([wilson.low, wilson.high], abs=1e-6)
    width = found["ci95_records"][1] - found["ci95_records"][0]
    # 40 records that go one way or the other: 2·1.96·√(p(1−p)/40).
    p = found["success_rate"]
    assert width == pytest.approx(3.92 * np.sqrt(p * (1 - p) / 40), rel=0.15)
    assert width > 5 * (wilson.high - wilson.low)


def test_the_bootstrap_covers_perturbations_as_well_as_records():
    rng = np.random.default_rng(1)
    by_case = np.repeat(rng.choice([0.0, 1.0], size=(8, 1)), 8, axis=1)
    low, high = rates(rows_of(by_case))["ci95_records"]
    assert high - low > 0.5
    low, high = rates(rows_of(by_case.T))["ci95_records"]
    assert high - low > 0.5
    # No draw differs from another: as wide as eight independent trials would be.
    low, high = rates(rows_of(np.full((8, 8), 0.25)))["ci95_records"]
    assert low < 0.1 < 0.5 < high
    assert rates(rows_of(np.full((8, 2), 0.25)))["ci95_records"] is None


def test_the_summary_keeps_kinds_of_records_and_pairs_apart():
    rows = rows_of([[1.0]], same=True) + rows_of([[0.5, 0.25]])
    rows += [rows_of([[0.75]])[0] | {"source": "O"}]
    summary = summarise_evaluation(rows)
    assert {kind: part["all"]["success_rate"] for kind, part in summary.items()} == {
        "same_record": 1.0, "other_records": 0.375, "other_classes": 0.75
    }  # fmt: skip
    assert set(summary["other_classes"]) == {"all", "O>N"}


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs, with a cache of its own."""
    folder = tmp_path_factory.mktemp("type2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGADV_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def start(place, task, *argv):
    composed = config.compose_checked([*argv, f"paths.root={place}"])
    folder = composed.folder
    folder.mkdir(parents=True, exist_ok=True)
    assert task.run(composed.config, folder) == 0
    return folder


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def finished(place):
    return start(place, attack, *QUICK)


def test_a_run_leaves_the_files_of_the_contract(finished):
    cases, evaluation = table(finished / "cases.csv"), table(finished / "evaluation.csv")
    assert len(cases) == 2
    assert tuple(evaluation[0]) == tuple(trial_table().columns)
    run = ecgadv.load_run(finished)
    for case in cases:
        mine = [r for r in evaluation if r["perturbation_case"] == case["case_id"]]
        assert [r["same_record"] for r in mine] == ["true", "false", "false"]
        assert mine[0]["victim_record"] == case["record"]
        assert case["record"] not in [r["victim_record"] for r in mine[1:]]
        for row in mine:
            hits = [int(row[f"hits_{c}"]) for c in ("A", "N", "O", "noise")]
            assert sum(hits) == int(row["n_shifts"]) == 6
            won, clean = int(row["n_success"]), int(row["n_clean"])
            assert clean == 6
            assert won <= hits[1]
            assert float(row["success_rate"]) == pytest.approx(won / clean)
        assert float(case["target_rate"]) == pytest.approx(float(mine[0]["success_rate"]))
        assert case["success"] == ("true" if float(case["target_rate"]) >= 0.5 else "false")
        assert int(case["n_gradients"]) == 6
        delta = run.delta[list(run.case_ids).index(case["case_id"])].astype(float)
        scale = run.scale_mv[list(run.case_ids).index(case["case_id"])]
        assert float(case["mean_power"]) == pytest.approx((delta**2).mean(), rel=1e-5)
        assert float(case["mean_power"]) <= 1.0
        assert float(case["peak_mv"]) == pytest.approx(scale * np.abs(delta).max(), rel=1e-5)
    assert (run.lengths == 9000).all()
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["evaluation"]["same_record"]["A>N"]["n_trials"] == 12
    assert summary["evaluation"]["other_records"]["all"]["n_trials"] == 24
    assert len(table(finished / "shifts.csv")) == 12
    assert len(table(finished / "history.csv")) == 6
    for name in ("shift_position", "loss_history", "spectrum"):
        assert (finished / "figures" / f"{name}.png").stat().st_size > 1000


def test_the_rates_follow_from_what_is_stored(finished):
    # An independent reading: scipy's filters, the recording, the stored signal, the victim.
    from scipy import signal

    run = ecgadv.load_run(finished)
    victim = ecgadv.load_victim("compact")
    b, a = signal.butter(3, 0.05, btype="highpass", fs=300)
    notches = [signal.iirnotch(mains, 30.0, fs=300) for mains in (60.0, 50.0)]
    for case, delta, x in zip(run.case_ids, run.delta, run.x, strict=True):
        mine = [r for r in table(finished / "shifts.csv") if r["perturbation_case"] == case]
        for row in mine:
            injected = signal.lfilter(b, a, np.roll(delta.astype(float), int(row["onset"])))
            for numerator, denominator in notches:
                injected = signal.lfilter(numerator, denominator, injected)
            predicted = victim.pipeline(x + injected).argmax(1)[0]
            assert "ANO~"[predicted] == row["predicted"]


def test_the_same_command_gives_the_same_tables(finished, place):
    again = place / "again"
    again.mkdir()
    assert attack.run(config.compose_checked([*QUICK, f"paths.root={place}"]).config, again) == 0
    for name in ("evaluation.csv", "shifts.csv", "history.csv"):
        assert (again / name).read_bytes() == (finished / name).read_bytes()


def test_stored_perturbations_are_tried_again_under_another_protocol(finished, place):
    argv = ["task=evaluate", f"evaluate.run={finished}", "evaluation.shifts=6", "tracking=none"]
    same = start(place, evaluate, *argv, "evaluation.max_records=2")
    assert (same / "evaluation.csv").read_bytes() == (finished / "evaluation.csv").read_bytes()
    more = start(place, evaluate, *argv, "evaluation.max_records=3", "evaluation.filter=none")
    rows = table(more / "evaluation.csv")
    assert len(rows) == 8
    summary = json.loads((more / "summary.json").read_text())
    assert summary["evaluation"]["other_records"]["all"]["n_trials"] == 36


def test_a_universal_perturbation_is_tried_on_records_it_never_saw(place):
    argv = [a for a in QUICK if not a.startswith("evaluation.max")]
    folder = start(
        place, attack, *argv, "universal=true", "attack.train_records=3",
        "evaluation.max_records=2", "evaluation.shifts=4",
    )  # fmt: skip
    (case,) = table(folder / "cases.csv")
    assert case["case_id"] == "universal3_A_to_N"
    assert int(case["n_records"]) == 3
    rows = table(folder / "evaluation.csv")
    assert [r["source"] for r in rows].count("A") == 2
    assert {r["source"] for r in rows} == {"A", "O", "~"}
    assert {r["same_record"] for r in rows} == {"false"}
    assert {r["made_from"] for r in rows} == {"A"}
    # The first three long and correct records of the class were used up for training.
    predictions = [
        r["record"] for r in table(folder / "predictions.csv")
        if r["label"] == "A" and r["correct"] == "true" and float(r["seconds_long"]) >= 30
    ]  # fmt: skip
    assert case["record"] == predictions[0]
    assert [r["victim_record"] for r in rows if r["source"] == "A"] == predictions[3:5]
    again = start(
        place, evaluate, "task=evaluate", f"evaluate.run={folder}", "evaluation.max_records=2",
        "evaluation.shifts=4", "tracking=none",
    )  # fmt: skip
    assert (again / "evaluation.csv").read_bytes() == (folder / "evaluation.csv").read_bytes()


def test_one_signal_for_all_classes_is_evaluated_by_class(place):
    argv = [a for a in QUICK if not a.startswith(("evaluation.", "selection.source"))]
    folder = start(
        place, attack, *argv, "universal=all", "attack.train_records=4", "evaluation.shifts=2",
        "evaluation.max_records=1",
    )  # fmt: skip
    (case,) = table(folder / "cases.csv")
    assert case["case_id"] == "universal4_any_to_N"
    assert case["source"] == "any"
    summary = json.loads((folder / "summary.json").read_text())
    trained = summary["training_records"]
    assert {c: len(names) for c, names in trained.items()} == {"A": 2, "O": 1, "~": 1}
    rows = table(folder / "evaluation.csv")
    assert sorted(r["source"] for r in rows) == ["A", "O", "~"]
    assert not {r["victim_record"] for r in rows} & {n for names in trained.values() for n in names}
    assert set(summary["evaluation"]["other_records"]) == {"all", "A>N", "O>N", "~>N"}
    assert float(case["target_rate"]) == pytest.approx(
        np.mean([float(r["success_rate"]) for r in rows])
    )
    again = start(
        place, evaluate, "task=evaluate", f"evaluate.run={folder}", "evaluation.max_records=1",
        "evaluation.shifts=2", "tracking=none",
    )  # fmt: skip
    assert (again / "evaluation.csv").read_bytes() == (folder / "evaluation.csv").read_bytes()


def test_cloud_and_known_onset_are_said_and_done(place, capsys):
    folder = start(place, attack, *QUICK, "deployment=cloud", "selection.per_class=1")
    assert "deployment=cloud classifies what was stored unfiltered" in capsys.readouterr().err
    assert len(table(folder / "cases.csv")) == 1
    folder = start(place, attack, *QUICK[:4], *QUICK[5:], "eot=none", "selection.per_class=1")
    assert "eot=none: the attack takes the onset for known" in capsys.readouterr().err
    assert int(table(folder / "cases.csv")[0]["n_gradients"]) == 3
    assert len({r["onset"] for r in table(folder / "shifts.csv")}) == 6


def test_a_window_and_another_solver(place):
    folder = start(
        place, attack, *QUICK, "attack=minnorm", "attack.search_steps=2", "window=10s",
        "selection.per_class=1",
    )  # fmt: skip
    run = ecgadv.load_run(folder)
    assert (run.delta[:, 3000:] == 0).all()
    assert (run.delta[:, :3000] != 0).any()
    assert max(int(r["onset"]) for r in table(folder / "shifts.csv")) <= 6000


def test_more_training_records_than_there_are_is_one_line(place):
    argv = (*QUICK, "universal=true", "attack.train_records=50")
    with pytest.raises(ConfigError, match=r"attack.train_records=50: only \d+ correctly"):
        start(place, attack, *argv)


def test_no_record_of_30_seconds_is_one_line(place):
    rng = np.random.default_rng(0)
    composed = config.compose_checked([*QUICK, f"paths.root={place}"])
    from ecgadv.records.base import RecordSet
    from ecgadv.study.audience import audience

    signals = [(f"S{i}", "A", rng.normal(size=3000).astype(np.float32)) for i in range(4)]
    records = RecordSet.pack("short", signals)
    victim = Victim(lambda x: x, name="v", n=9000)
    yes, split = np.ones(4, bool), np.full(4, "heldout")
    with pytest.raises(ConfigError, match="no record of short that lasts at least 30 s"):
        audience(composed.config, victim, records, yes, split)


# --- studies --------------------------------------------------------------------------------------


def sweep_of(place, finished, settings):
    """A sweep's folder whose jobs are all the same run, under other settings."""
    sweep = place / "a_sweep"
    for number, setting in enumerate(settings):
        job = sweep / f"{number}_job"
        (job / ".hydra").mkdir(parents=True)
        for name in ("cases.csv", "summary.json", "config.json", "history.csv"):
            (job / name).write_bytes((finished / name).read_bytes())
        (job / ".hydra" / "overrides.yaml").write_text(f"- threat_model=type2\n- {setting}\n")
    return sweep


def test_a_study_ends_in_one_table_and_one_figure(finished, tmp_path, capsys):
    sweep = sweep_of(tmp_path, finished, ["window=10s", "window=30s"])
    study.show(sweep)
    printed = capsys.readouterr().out
    assert "window=10s" in printed
    assert "threat_model" not in printed
    rows = table(sweep / "study.csv")
    assert tuple(rows[0]) == tuple(study.STUDY.columns)
    summary = json.loads((finished / "summary.json").read_text())["evaluation"]
    assert {r["tried_on"] for r in rows} == set(summary)
    for row in rows:
        part = summary[row["tried_on"]][row["pair"]]
        assert int(row["n_hits"]) == part["n_hits"]
        known = part["ci95_records"]
        assert (known is None) == (part["n_records"] < 3)
        assert row["ci95_low"] == "" if known is None else float(row["ci95_low"]) == known[0]
        assert float(row["wilson_high"]) == pytest.approx(part["ci95_trials"][1], rel=1e-6)
        cases = table(finished / "cases.csv")
        assert float(row["rms_mv"]) == pytest.approx(
            np.median([float(c["rms_mv"]) for c in cases]), rel=1e-6
        )
    assert (sweep / "figures" / "study.png").stat().st_size > 5000
    lines = (sweep / "study.md").read_text().splitlines()
    assert len(lines) == 2 + 2 * len(summary)
    from ecgadv.report import write

    assert "study.png" in str(study.write_study(sweep)[1])
    assert write.write_sweep_report(sweep).stat().st_size > 10000


def test_a_study_whose_jobs_differ_in_words_names_them(finished, tmp_path):
    sweep = sweep_of(tmp_path, finished, ["eot=shift", "eot=none", "eot=shift filter=none"])
    (sweep / "1_job" / "history.csv").unlink()
    jobs, files = study.write_study(sweep)
    assert [job.setting for job in jobs] == ["eot=shift", "eot=none", "eot=shift filter=none"]
    assert [job.history is None for job in jobs] == [False, True, False]
    assert all(file.is_file() for file in files)


def test_a_study_of_one_job_is_named_after_what_it_varies(finished, tmp_path):
    sweep = sweep_of(tmp_path, finished, ["attack.train_records=20"])
    assert study.read_study(sweep)[0].setting == "threat_model=type2 attack.train_records=20"
    (sweep / "0_job" / ".hydra" / "hydra.yaml").write_text(
        "hydra: {sweeper: {params: {attack.train_records: '1,5,20,100'}}}"
    )
    assert study.read_study(sweep)[0].setting == "attack.train_records=20"


def test_the_documentations_figure_takes_several_sweeps_as_one(finished, tmp_path, monkeypatch):
    import runpy
    import sys

    script = Path(__file__).parents[1] / "tools" / "make_study_figure.py"
    sweeps = [sweep_of(tmp_path / t, finished, [f"target={t}"]) for t in ("N", "O")]
    file = tmp_path / "both.png"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, sweeps), str(file)])
    runpy.run_path(str(script), run_name="__main__")
    assert file.stat().st_size > 5000
    assert [job.setting for job in study.read_study(*sweeps)] == ["target=N", "target=O"]


def test_a_sweep_without_random_onsets_is_no_study(tmp_path):
    assert study.write_study(tmp_path) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_rates_at_random_onsets_are_metrics_of_the_run(finished):
    from ecgadv.tracking import content

    summary = json.loads((finished / "summary.json").read_text())["evaluation"]
    found = content.metrics(finished)
    for kind, parts in summary.items():
        assert found[f"target_rate/{kind}"] == parts["all"]["success_rate"]
        assert found[f"target_rate/{kind}/A_to_N"] == parts["A>N"]["success_rate"]
        known = parts["all"]["ci95_records"]
        assert (known is None) == (parts["all"]["n_records"] < 3)
        assert found.get(f"target_rate/{kind}/low") == (known and known[0])
        assert found[f"target_rate/{kind}/wilson_high"] == parts["all"]["ci95_trials"][1]


def test_a_spectrum_has_its_peaks_where_they_are():
    from ecgadv.report.type2 import _density

    time = np.arange(9000) / 300
    wave = np.sqrt(2) * np.sin(2 * np.pi * 12 * time)[None]
    frequency, density = _density(wave, 300)
    assert frequency[density.argmax()] == pytest.approx(12, rel=0.05)
    _, flat = _density(np.random.default_rng(0).normal(size=(50, 9000)), 300)
    # White noise of variance 1 has 1/150 a Hz on each side folded: 2/300.
    assert np.median(flat) == pytest.approx(2 / 300, rel=0.05)


# --- the Python interface -------------------------------------------------------------------------


def test_eot_from_python():
    def forward(x):
        from keras import ops

        power = ops.square(x[:, 1:, 0] - x[:, :-1, 0])
        rough = ops.mean(power, axis=-1) - 1.2
        return ops.stack([-4 * rough, 4 * rough, rough - 30, rough - 30], axis=-1)

    victim = Victim(forward, name="roughness", n=200)
    time = np.arange(200) / 200
    x = np.stack([np.sin(2 * np.pi * (3 + k) * time) for k in range(3)])
    x = (x / x.std(1, keepdims=True)).astype(np.float32)
    options = {"method": "eot", "steps": 40, "filter": "none", "evaluation_filter": "none"}
    found = ecgadv.attack(victim, x, target="N", power=4.0, **options)
    assert found.success.all()
    assert (found.predicted == 1).all()
    assert found.delta.shape == (3, 200)
    assert ((found.delta**2).mean(1) <= 4.0).all()
    assert (found.n_gradients == 320).all()
    windowed = ecgadv.attack(victim, x, target=1, window=50, power=0.1, **options)
    assert (windowed.delta[:, 50:] == 0).all()
    assert not windowed.success.any()
    with pytest.raises(DataError, match="at least 200 samples"):
        ecgadv.attack(victim, x, target=1, lengths=[100] * 3, **options)
    with pytest.raises(ConfigError, match="window=201"):
        ecgadv.attack(victim, x, target=1, window=201, **options)
