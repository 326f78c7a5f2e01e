"""Scores of a reading study: made-up readers of known skill, files, and the command line."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import in_process

from ecgadv.errors import StoreError
from ecgadv.evaluate.statistics import wilson
from ecgadv.reader_study import answers as reading
from ecgadv.reader_study import scores as scoring

sys.path.insert(0, str(Path(__file__).parent / "tracking"))

METRICS = ("diff", "diffl2", "l2")


def make_key(records=24):
    """A key of so many recordings in the first part and half as many in the second."""
    trials = {}
    for k in range(records):
        for metric in METRICS:
            trials[f"d{k}{metric}"] = {
                "kind": "detect", "record": f"R{k}", "source": "ANO~"[k % 4], "target": "N",
                "strips": {f"o{k}{metric}": "original", f"a{k}{metric}": metric},
            }  # fmt: skip
    for k in range(records // 2):
        trials[f"c{k}"] = {
            "kind": "closest", "record": f"S{k}", "source": "A", "target": "N",
            "strips": {f"c{k}{metric}": metric for metric in METRICS},
        }  # fmt: skip
    return {"format": reading.KEY_FORMAT, "study": "s1", "seed": 0, "trials": trials}


def read(key, reader, skill, rng, favourite="diff"):
    """Answers of one reader: right with ``skill`` of the metric, the favourite found closest."""
    answers = []
    for name, trial in key["trials"].items():
        strips = list(trial["strips"])
        if trial["kind"] == "detect":
            k, metric = int(trial["record"][1:]), trial["strips"][strips[1]]
            if METRICS[(k + reader) % 3] != metric:
                continue
            chosen = strips[1] if rng.random() < skill[metric] else strips[0]
        else:
            chosen = next(s for s in strips if trial["strips"][s] == favourite)
        answers.append({
            "study": "s1", "reader": str(reader), "experience": "", "order_seed": 1, "group": 0,
            "place": len(answers) + 1, "trial": name, "kind": trial["kind"], "shown": strips,
            "chosen": chosen, "confidence": 2, "milliseconds": 1500.0,
        })  # fmt: skip
    return answers


def as_json(answers):
    first = answers[0]
    shared = {k: first[k] for k in ("study", "reader", "experience", "order_seed", "group")}
    inner = [{k: a[k] for k in reading.ANSWER_COLUMNS[5:]} for a in answers]
    return {"format": reading.ANSWERS_FORMAT, **shared, "answers": inner}


def as_csv(answers, file):
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, reading.ANSWER_COLUMNS)
        writer.writeheader()
        writer.writerows(a | {"shown": " ".join(a["shown"])} for a in answers)


@pytest.fixture(scope="module")
def panel():
    """Nine readers who see l2 nearly always, diff hardly ever."""
    key, rng = make_key(), np.random.default_rng(0)
    skill = {"l2": 0.97, "diffl2": 0.9, "diff": 0.5}
    return key, [a for reader in range(9) for a in read(key, reader, skill, rng)]


def test_scores_count_right_answers_by_metric(panel):
    key, answers = panel
    rows = reading.join(answers, key)
    scores = scoring.score(rows, seed=1)
    assert (scores["n_readers"], scores["n_answers"]) == (9, 9 * (24 + 12))
    assert scores["n_records"] == 36
    for metric in METRICS:
        mine = [r for r in rows if r["kind"] == "detect" and r["metric"] == metric]
        found = scores["detect"][metric]
        right = sum(r["correct"] for r in mine)
        assert (found["n"], found["n_correct"]) == (len(mine), right)
        assert found["n"] == 72
        assert found["ci95"] == pytest.approx(wilson(right, 72), abs=1e-6)
        low, high = found["ci95_readers_records"]
        assert low < found["share"] < high
        assert found["median_seconds"] == 1.5
    assert scores["detect"]["l2"]["d_prime"] > 1.5 > scores["detect"]["diff"]["d_prime"]
    assert scores["least_noticeable"]["detect"] == {"metric": "diff", "separate": True}
    (gap,) = [
        d for d in scores["differences"]
        if (d["question"], d["metric"], d["other"]) == ("detect", "diff", "l2")
    ]  # fmt: skip
    assert gap["difference"] == pytest.approx(
        scores["detect"]["diff"]["share"] - scores["detect"]["l2"]["share"]
    )
    assert gap["ci95"][1] < 0


def test_the_closest_counts_metrics_that_nobody_chose(panel):
    key, answers = panel
    scores = scoring.score(reading.join(answers, key))
    assert {m: s["n_chosen"] for m, s in scores["closest"].items()} == {
        "diff": 108, "diffl2": 0, "l2": 0,
    }  # fmt: skip
    assert scores["closest"]["l2"]["share"] == 0
    assert scores["least_noticeable"]["closest"] == {"metric": "diff", "separate": True}


def test_guessing_readers_are_at_chance_and_nothing_is_told_apart():
    key, rng = make_key(), np.random.default_rng(4)
    skill = dict.fromkeys(METRICS, 0.5)
    answers = [a for reader in range(6) for a in read(key, reader, skill, rng)]
    scores = scoring.score([r for r in reading.join(answers, key) if r["kind"] == "detect"])
    assert all(s["ci95"][0] < 0.5 < s["ci95"][1] for s in scores["detect"].values())
    assert not scores["least_noticeable"]["detect"]["separate"]
    assert "closest" not in scores


def test_intervals_over_readers_are_wider_where_readers_differ():
    """Half of the readers always right, half always wrong: answers are far from independent."""
    key = make_key()
    answers = []
    for reader in range(6):
        skill = dict.fromkeys(METRICS, float(reader % 2))
        answers += read(key, reader, skill, np.random.default_rng(reader))
    scores = scoring.score([r for r in reading.join(answers, key) if r["kind"] == "detect"])
    for found in scores["detect"].values():
        width = np.diff(found["ci95_readers_records"])[0]
        assert width > 1.5 * np.diff(found["ci95"])[0]


def test_the_interval_covers_the_truth():
    """Readers and recordings with skills of their own: 95 % of the intervals hold the mean."""
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(60):
        ease, eye = rng.normal(0, 0.6, 20), rng.normal(0, 0.6, 12)
        rows, values = [], []
        for i, a in enumerate(ease):
            for j, b in enumerate(eye):
                rows.append({"reader": f"{j}", "record": f"{i}"})
                values.append(float(rng.random() < 1 / (1 + np.exp(-(0.8 + a + b)))))
        (shares,) = scoring.resampled_shares(rows, {"m": np.array(values)}, 0, 400).values()
        low, high = np.percentile(shares, [2.5, 97.5])
        truth = 0.6727  # mean of the logistic function at 0.8 with a normal spread of 0.6 √2
        hits += low <= truth <= high
    assert hits >= 52


def test_d_prime_of_a_choice_between_two():
    assert scoring.d_prime(50, 100) == 0
    assert scoring.d_prime(76, 100) == pytest.approx(1.0, abs=0.01)  # 76 % is d' = 1
    assert np.isfinite(scoring.d_prime(10, 10))
    assert scoring.d_prime(0, 10) == pytest.approx(-scoring.d_prime(10, 10))


def test_json_and_csv_of_many_readers_are_read_alike(panel, tmp_path):
    key, answers = panel
    for reader in range(3):
        mine = [a for a in answers if a["reader"] == str(reader)]
        if reader != 1:
            (tmp_path / f"{reader}.json").write_text(json.dumps(as_json(mine)))
        if reader != 2:
            as_csv(mine, tmp_path / f"{reader}.csv")
    (tmp_path / "study_key.json").write_text(json.dumps(key))
    found = reading.read_answers(tmp_path)
    assert len(found) == 3 * 36  # of reader 0 only one file counts
    wanted = [r for r in reading.join(answers, key) if int(r["reader"]) < 3]
    order = lambda r: (r["reader"], r["place"] if isinstance(r["place"], int) else int(r["place"]))  # noqa: E731
    for a, b in zip(
        sorted(reading.join(found, key), key=order), sorted(wanted, key=order), strict=True
    ):
        assert (a["trial"], a["metric"], a["correct"]) == (b["trial"], b["metric"], b["correct"])


def test_answers_that_do_not_belong_are_refused(panel, tmp_path):
    key, answers = panel
    one = answers[:1]
    for change, message in (
        ({"study": "other"}, "is of study other"),
        ({"trial": "nowhere"}, "no such trial"),
        ({"kind": "closest"}, "no such trial"),
        ({"chosen": "o1l2"}, "was not shown"),
    ):
        with pytest.raises(StoreError, match=message):
            reading.join([one[0] | change], key)
    with pytest.raises(StoreError, match="answered twice"):
        reading.join(one + one, key)
    with pytest.raises(StoreError, match="hold no answer"):
        scoring.score([])
    with pytest.raises(StoreError, match="holds no answers"):
        reading.read_answers(tmp_path)
    for name, text in (("a.json", "{}"), ("b.json", "[1"), ("c.csv", "x,y\n1,2\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(StoreError, match="no file of answers"):
            reading.read_answers(tmp_path / name)
    with pytest.raises(StoreError, match="no key of a study"):
        reading.read_key(tmp_path / "a.json")
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a.json", "b.json"):
        (twice / name).write_text(json.dumps(as_json(one)))
    with pytest.raises(StoreError, match=r"has answered in a\.json already"):
        reading.read_answers(twice)


def test_the_figure_shows_shares_intervals_and_chance(panel):
    from ecgadv.reader_study.figure import scores_figure

    key, answers = panel
    scores = scoring.score(reading.join(answers, key))
    figure = scores_figure(scores)
    for axes, kind, chance in zip(figure.axes, ("detect", "closest"), (0.5, 1 / 3), strict=True):
        lines = {line.get_gid(): line for line in axes.lines}
        assert lines["chance"].get_xdata()[0] == pytest.approx(chance)
        labels = [t.get_text() for t in axes.get_yticklabels()]
        for row, metric in enumerate(scores[kind]):
            mine = scores[kind][metric]
            dot = lines[f"share {metric}"]
            assert dot.get_xdata()[0] == mine["share"]
            assert dot.get_ydata()[0] == row
            assert list(lines[f"wilson {metric}"].get_xdata()) == mine["ci95"]
            assert list(lines[f"resampled {metric}"].get_xdata()) == mine["ci95_readers_records"]
            assert labels[row] == f"{metric} ({mine['n']})"
    figure.canvas.draw()
    assert (np.asarray(figure.canvas.buffer_rgba())[..., :3] < 250).any(-1).mean() > 0.01


def test_from_a_run_to_scores_on_the_command_line(tmp_path, capsys, monkeypatch):
    from fake_run import config, ecg, write_run

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
    # Recordings of the made-up run, whose records are named 00000, 10000, ….

    names = [f"{s}{k:04d}" for s in range(4) for k in range(2)]
    np.savez(
        tmp_path / "records.npz", signals=np.array([0.2 * ecg(int(n[0])) for n in names]),
        fs=np.float64(300), labels=np.array(["ANO~"[int(n[0])] for n in names]),
        ids=np.array(names),
    )  # fmt: skip
    source = {
        "name": "arrays", "_target_": "ecgadv.records.arrays.load",
        "root": str(tmp_path / "records.npz"),
    }  # fmt: skip
    sweep = tmp_path / "sweep"
    for k, metric in enumerate(METRICS):
        job = write_run(sweep / f"{k}_{metric}", seed=k, metric=metric)
        (job / "config.json").write_text(json.dumps(config(metric) | {"data": source}))
    root = f"paths.root={tmp_path}"
    code, _ = in_process(
        "task=report", f"sweep={sweep}", "report.study=true", "report.study_records=6",
        "report.study_seconds=3", "seed=3", root,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert code == 0
    assert "6 recordings, 3 metrics" in said
    key = reading.read_key(sweep / "reading_study" / "study_key.json")
    assert key["seed"] == 3
    assert (sweep / "reading_study" / "study.html").is_file()
    assert not (sweep / "report.html").exists()
    # A reader of group 0 who is always right, and takes diff for the original.
    answers = []
    for name, trial in key["trials"].items():
        if trial["group"] in (0, None):
            wanted = [s for s, what in trial["strips"].items() if what != "original"]
            if trial["kind"] == "closest":
                wanted = [s for s, what in trial["strips"].items() if what == "diff"]
            answers.append({
                "study": key["study"], "reader": "1", "experience": "", "order_seed": 1,
                "group": 0, "place": len(answers) + 1, "trial": name, "kind": trial["kind"],
                "shown": list(trial["strips"]), "chosen": wanted[0], "confidence": 3,
                "milliseconds": 900,
            })  # fmt: skip
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(as_json(answers)))
    evaluate = ["task=evaluate", f"evaluate.study={file}", "tracking=none", root]
    code, _ = in_process(*evaluate)
    assert code == 2
    assert "no study_key.json lies beside it" in capsys.readouterr().err
    code, folder = in_process(*evaluate, f"sweep={sweep}")
    assert code == 0
    said = capsys.readouterr().out
    assert "6 answers of 1 readers on 6 recordings" in said
    assert "least noticeable by 'closest?' diff" in said
    scores = json.loads((folder / "study_scores.json").read_text())
    assert all(s["share"] == 1 for s in scores["detect"].values())
    with (folder / "study_answers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == tuple(reading.JOINED.columns)
    assert len(rows) == 6
    assert (folder / "figures" / "study_scores.pdf").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task=evaluate", "evaluate.study=nowhere.json"], "there is no such file"),
        (["task=evaluate"], "evaluate.run=FOLDER (of an attack run) or evaluate.study=FILE"),
        (["task=evaluate", "evaluate.run=.", "evaluate.study_key=run.py"], "needs evaluate.study"),
        (["task=report", "report.run=.", "report.study=yes please"], "must be true or false"),
        (["task=report", "report.run=.", "report.study_records=1"], "at least 2"),
        (["task=report", "report.run=.", "report.study_seconds=0"], "above 0"),
    ],
)
def test_slips_are_told_before_anything_is_loaded(options, message, capsys, monkeypatch, tmp_path):
    from ecgadv import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.py").touch()
    assert cli.main([*options, "tracking=none"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
