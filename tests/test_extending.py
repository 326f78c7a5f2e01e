"""Every example of docs/extending.md, written into a folder of a user's own and run from there."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import in_process, small_world

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "docs/extending.md").read_text(encoding="utf-8"), re.M | re.S
)
FILES = {
    text.split("\n", 1)[0].removeprefix("# "): text
    for kind, text in BLOCKS
    if kind in ("python", "yaml")
}
COMMANDS = [
    line.removeprefix("python run.py ")
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
]
QUICK = {
    "type2": ["attack.steps=8", "evaluation.shifts=10", "evaluation.max_records=1"],
    "late": ["attack.steps=10"],
    "doubt": ["attack.steps=10"],
    "mine": ["attack.steps=6"],
    "noisy": ["attack.steps=6"],
    "smooth": ["attack.steps=6"],
}
"""What keeps a command short, by a word in it."""


@pytest.fixture
def own(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def argv(command, folder):
    """A command's arguments, on a small world where it does not choose another one."""
    words = shlex.split(command)
    chosen = {word.partition("=")[0] for word in words}
    world = [] if {"data", "victim"} & chosen else small_world(folder / "world")
    settings = [] if world else ["selection.per_class=1", f"paths.data={folder / 'cache'}"]
    for word, more in QUICK.items():
        if re.search(rf"\b{word}\b", command) and not {"attack"} & chosen - {"threat_model"}:
            settings += [m for m in more if m.partition("=")[0] not in chosen | set(settings)]
            break
    taken = {word.partition("=")[0] for word in settings}
    world = [w for w in world if w.partition("=")[0] not in chosen | taken]
    return [*words, *world, *settings, f"paths.root={folder}"]


def test_the_page_has_an_example_of_every_noun():
    groups = {Path(name).parts[1] for name in FILES if name.startswith("my_conf/")}
    assert groups == {"metric", "attack", "filter", "goal", "data", "victim", "defence"}
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_an_example_runs(command, own, capsys):
    code, folder = in_process("tracking=none", *argv(command, own))
    assert code == 0, capsys.readouterr().err
    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    done = [row for row in rows if row["status"] == "ok"]
    assert done
    assert (folder / "report.html").stat().st_size > 10_000
    if "metric=late" in command:
        assert all(float(row["d_late"]) > 0 for row in done)
    if "goal=doubt" in command:
        assert {row["goal"] for row in rows} == {"doubt"}
    if "attack=search" in command:
        assert all(int(row["n_gradients"]) == 0 for row in done)
        assert any(int(row["n_forwards"]) > 20 for row in done)


@pytest.mark.slow
def test_all_of_them_at_once_in_the_report_and_in_mlflow(own):
    command = argv(COMMANDS[-1], own)
    env = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", *command, "tracking=mlflow"],
        cwd=own, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (own / "outputs").iterdir()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["victim"]["name"].endswith("+smooth")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "late distance" in page
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{own / 'mlflow.db'}")
    (run,) = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()]
    )
    assert any("late" in key for key in run.data.metrics)
    assert run.data.params["metric"] == "late"
