"""What is read from a run's folder, and how addresses are made absolute; no MLflow."""

import base64
import json
import subprocess
import sys
import zlib

import pytest
from fake_run import config, write_run

from ecgadv.errors import ConfigError
from ecgadv.tracking import content, memory, open_tracker, sweep, views
from ecgadv.tracking.description import description
from ecgadv.tracking.tracker import NullTracker
from ecgadv.tracking.uris import hide_password, resolve_uri, ui_command


def test_tracking_none_never_imports_mlflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ecgadv.tracking import open_tracker\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with open_tracker({'name': 'none'}, {}, folder, root=folder) as t:\n"
        "    t.start({'name': 'x'}); t.progress(1, {'a': 1}); t.log_epoch({'epoch': 1})\n"
        "assert not {'mlflow', 'tensorflow', 'keras', 'hydra'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_unknown_tracker_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="tracking=wandb is not one of mlflow, none"):
        open_tracker({"name": "wandb"}, {}, tmp_path, root=tmp_path)
    assert type(open_tracker({"name": "none"}, {}, tmp_path, root=tmp_path)) is NullTracker


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        (None, "sqlite:///{root}/mlflow.db"),
        ("sqlite:///other.db", "sqlite:///{root}/other.db"),
        ("sqlite:////tmp/x/a.db", "sqlite:////tmp/x/a.db"),
        ("runs/a.db", "sqlite:///{root}/runs/a.db"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql+psycopg://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
    ],
)
def test_addresses_become_absolute(tmp_path, uri, resolved):
    assert resolve_uri(uri, tmp_path) == resolved.format(root=tmp_path)


@pytest.mark.parametrize(
    "uri", ["file:///tmp/mlruns", "ftp://host", "postgres://h/d", "sqlite:///"]
)
def test_addresses_that_mlflow_cannot_serve(tmp_path, uri):
    with pytest.raises(ConfigError, match=r"tracking\.uri"):
        resolve_uri(uri, tmp_path)


def test_a_folder_is_no_store(tmp_path):
    (tmp_path / "mlruns").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        resolve_uri("mlruns", tmp_path)


def test_passwords_are_hidden_everywhere(tmp_path):
    uri = "postgresql://me:s3cret@host/db"
    assert hide_password(uri) == "postgresql://me:***@host/db"
    assert "s3cret" not in ui_command(uri)
    assert "s3cret" not in str(content.flatten({"tracking": {"uri": uri}}))
    memory.remember(tmp_path / "f.json", uri, run_id="r")
    assert "s3cret" not in (tmp_path / "f.json").read_text()
    assert memory.recall(tmp_path / "f.json", uri) == {"run_id": "r"}
    text = '{"a": "http://host:80", "b": "x@y"}'
    assert hide_password(text) == text


def test_ui_command_is_the_line_for_a_shell(tmp_path):
    assert (
        ui_command("sqlite:////a b/m.db") == "mlflow ui --backend-store-uri 'sqlite:////a b/m.db'"
    )
    assert ui_command("http://host:5000") == "http://host:5000"


def test_parameters_are_spelled_as_on_the_command_line():
    flat = content.flatten(config("diff") | {"long": "x" * 9000, "dict": {"~": 1}})
    assert flat["metric"] == "diff"
    assert flat["attack.steps"] == "100"
    assert flat["data.root"] == "null"
    assert flat["selection.source"] == "[A,N]"
    assert flat["dict.noise"] == "1"
    assert len(flat["long"]) == content.MAX_PARAM
    assert not any("_target_" in key for key in flat)


def test_metrics_of_a_folder(tmp_path):
    found = content.metrics(write_run(tmp_path / "run"))
    # 12 pairs x 2, one lost; the failed case counts as an attempt, the skipped one does not.
    assert found["n_cases"] == 25
    assert found["n_success"] == 23
    assert found["success_rate"] == pytest.approx(23 / 25)
    assert found["success_rate/A_to_noise"] == 0.5
    assert found["success_rate/N_to_A"] == pytest.approx(2 / 3)
    assert found["success_rate/noise_to_O"] == 1.0
    for name in ("d_l2", "d_smooth", "d_smooth_l2"):
        assert found[f"{name}/q25"] < found[f"{name}/median"] < found[f"{name}/q75"]
    assert found["gradients_per_case"] == 100.0
    assert found["cases_per_second"] == 2.0
    assert found["success_rate_ci95/low"] == 0.8


def test_distances_are_those_of_successes():
    rows = [
        {"source": "A", "target": "N", "status": "ok", "success": s, "d_l2": d}
        for s, d in (("true", "1"), ("true", "3"), ("false", "1000"), ("true", "nan"))
    ]
    assert content.case_metrics(rows)["d_l2/median"] == 2.0


def test_pairs_of_the_summary_have_the_last_word(tmp_path):
    folder = write_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["pairs"] = {"A>~": {"success_rate": 0.25}}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert content.metrics(folder)["success_rate/A_to_noise"] == 0.25


def test_description_is_a_markdown_table(tmp_path):
    text = description(write_run(tmp_path / "run"))
    assert "23 of 25 cases successful (92.0 %)" in text
    assert "| A | ~ | 2 | 50.0 % |" in text
    # Nine recordings; two of A > ~ are too few for an interval.
    assert "95 % interval over recordings " in text
    assert "(Wilson's over cases 80.0 % to 99.0 %)" in text
    assert next(line for line in text.splitlines() if line.startswith("| A | ~ |")).endswith(
        "| – |"
    )
    assert "1 skipped: they count in no rate." in text
    assert text.count("\n| ") == 13
    assert description(tmp_path) == ""


def test_intervals_over_records_come_first_and_are_absent_where_there_is_none(tmp_path):
    folder = write_run(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["ci95_records"] = [0.7, 1.0]
    summary["n_skipped"] = 4
    summary["pairs"] = {
        "A>N": {"success_rate": 0.5, "ci95_records": [0.25, 0.75]},
        "N>A": {"success_rate": 0.5, "ci95_records": None},
    }
    part = {"success_rate": 0.5, "n_hits": 20, "n_trials": 40, "n_records": 4,
            "ci95_trials": [0.35, 0.65]}  # fmt: skip
    summary["evaluation"] = {
        "same_record": {
            "all": part | {"ci95_records": [0.3, 0.7]},
            "A>N": part | {"ci95_records": None},
        }
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    found = content.metrics(folder)
    assert found["success_rate_ci95_records/low"] == 0.7
    assert found["success_rate_ci95_records/high"] == 1.0
    assert found["success_rate_ci95_records/A_to_N/low"] == 0.25
    assert "success_rate_ci95_records/N_to_A/low" not in found
    assert found["n_skipped"] == 4
    assert found["target_rate/same_record/low"] == 0.3
    assert found["target_rate/same_record/hits"] == 20
    assert found["target_rate/same_record/readings"] == 40
    assert found["target_rate/same_record/A_to_N/wilson_high"] == 0.65
    assert "target_rate/same_record/A_to_N/low" not in found
    assert (
        "- on their own recording: 50.0 % of 40 readings at random onsets reach the target, 95 % "
        "over recordings 30.0 % to 70.0 %" in description(folder)
    )


def test_run_folders_in_natural_order(tmp_path):
    for name in ("10", "2", "1"):
        write_run(tmp_path / "sweep" / name, per_pair=1)
    assert [f.name for f in content.run_folders(tmp_path)] == ["1", "2", "10"]


def test_fingerprint_sees_a_changed_file(tmp_path):
    folder = write_run(tmp_path / "run", per_pair=1)
    before = content.fingerprint(folder)
    (folder / "mlflow_run.json").write_text("{}")
    assert content.fingerprint(folder) == before
    (folder / "report.html").write_text("new")
    assert content.fingerprint(folder) != before


def test_what_was_swept_comes_with_groups_first_and_without_places():
    jobs = [
        {"metric": m, "attack": "cw", "attack.steps": s, "paths.root": m, "seed": "0"}
        for m, s in (("l2", "100"), ("diff", "200"))
    ]
    jobs[1]["metric.ridge"] = "0.01"
    assert views.swept(jobs) == ["metric", "attack.steps"]
    assert views.swept([]) == views.swept(jobs[:1]) == []


def test_the_view_of_a_sweep_is_what_the_ui_reads():
    tag = views.view("abc", ["metric"], ["success_rate", "d_l2/median"])
    head, _, packed = tag.partition(";")
    assert head == "deflate"
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    kinds = [(c["type"], c.get("metricKey")) for c in state["compareRunCharts"]]
    assert kinds == [("PARALLEL", None), ("BAR", "success_rate"), ("BAR", "d_l2/median")]
    assert state["compareRunCharts"][0]["selectedParams"] == ["metric"]
    assert "'abc'" in state["searchFilter"]
    # An experiment's tag holds 5,000 characters.
    many = [f"some.parameter.number{k}" for k in range(4)]
    assert (
        len(views.view("f" * 32, many, views.results(["d_l2", "d_smooth", "d_smooth_l2"]))) < 5000
    )


def test_a_long_sweep_fits_the_description():
    row = dict.fromkeys(("n_cases", "success_rate", "d_l2_median", "d_smooth_median"), 1.0)
    words = "metric=l2 paths.root=/secret/place"
    rows = [row | {"job": str(k), "overrides": words, "status": "finished"} for k in range(900)]
    links = views.links("1", "a" * 32, ["b" * 32] * 20)
    text = sweep.markdown(rows, links)
    assert len(text) < 8000
    assert text.startswith("[charts of the jobs](#/experiments/1/runs?")
    assert "/secret" not in text
    listed = text.count("\n| ") - 1
    assert f"… and {900 - listed} more" in text
