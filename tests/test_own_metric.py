"""A metric of a user's own, in a folder of theirs: its column, label and words are everywhere."""

import csv
import json
import sys

import numpy as np
import pytest
from helpers import in_process, small_world, table

import ecgadv
from ecgadv import cli
from ecgadv.tracking import content

METRIC = """
import numpy as np

from ecgadv.threat.both import ops_of
from ecgadv.threat.metrics import Factor, Quadratic


class Late(Quadratic):
    {told}

    def __init__(self, weight=4.0, ridge=0.0):
        super().__init__("late", 0.0, 1.0, ridge)
        object.__setattr__(self, "weight", float(weight))

    def weights(self, n):
        return np.where(np.arange(n) < n // 2, self.weight, 1.0).astype(np.float32)

    def value(self, delta):
        return ops_of(delta).sum(self.weights(delta.shape[-1]) * delta * delta, axis=-1)

    def apply(self, delta):
        return self.weights(delta.shape[-1]) * delta

    def factor(self, n, mask=None, ridge=None):
        free = np.ones((1, n)) if mask is None else np.asarray(mask, float)
        diagonal = self.weights(n)[None] + (self.ridge if ridge is None else ridge)
        return Factor(free, diagonal, np.zeros((0, 1, n)), np.zeros((0, 1, n)))
"""

TOLD = 'column, label, help = "d_late", "Σ wδ² (late)", "squares, the first half counted more"'


def own_metric(folder, monkeypatch, told, module):
    (folder / f"{module}.py").write_text(METRIC.format(told=told))
    (folder / "conf" / "metric").mkdir(parents=True)
    yaml = f"name: late\n_target_: {module}.Late\nweight: 4.0\n"
    (folder / "conf" / "metric" / "late.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(folder)
    root = f"paths.root={folder}"
    return ["--config-dir", str(folder / "conf"), "metric=late", "metric.weight=9", root]


def test_it_has_a_column_a_label_and_words_of_its_own(tmp_path, monkeypatch):
    own = own_metric(tmp_path, monkeypatch, TOLD, "my_late_metric")
    world = small_world(tmp_path / "world", records=3)
    code, folder = in_process(*own, *world, "attack.steps=12", "attack.search_steps=4")
    assert code == 0
    rows = table(folder)
    assert list(rows[0])[-1] == "d_late"
    won = [row for row in rows if row["success"] == "true"]
    assert won
    run = ecgadv.load_run(folder)
    weights = np.where(np.arange(run.delta.shape[1]) < run.delta.shape[1] // 2, 9.0, 1.0)
    expected = (weights * run.delta.astype(np.float64) ** 2).sum(1)
    np.testing.assert_allclose(run.cases.loc[run.cases.status == "ok", "d_late"], expected)

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["distance"] == {
        "metric": "late", "column": "d_late", "label": "Σ wδ² (late)",
        "help": "squares, the first half counted more",
    }  # fmt: skip
    middle = np.median([float(row["d_late"]) for row in won])
    assert summary["distances"]["d_late"]["median"] == pytest.approx(middle)
    assert all("d_late" in pair for pair in summary["pairs"].values())
    assert summary["robustness"]["column"] == "d_late"
    with (folder / "robustness.csv").open() as file:
        budgets = [float(r["budget"]) for r in csv.DictReader(file) if r["pair"] == "all"]
    assert budgets == pytest.approx(sorted({float(row["d_late"]) for row in won}))

    page = (folder / "report.html").read_text()
    assert "Σ wδ² (late)" in page
    assert "squares, the first half counted more" in page
    assert content.metrics(folder)["d_late/median"] == pytest.approx(middle)
    assert list(content.metrics(folder))[:5] == [
        "success_rate", "d_l2/median", "d_smooth/median", "d_smooth_l2/median", "d_late/median",
    ]  # fmt: skip

    from ecgadv.report import data, figures

    drawn = figures.distance_distributions(data.read_cases(folder))
    assert drawn.axes[-1].get_xlabel() == "Σ wδ² (late)"


@pytest.mark.parametrize(
    ("told", "message"),
    [('column = "seconds"', "column seconds means something else in cases.csv"),
     ('column, label = "d_l2", "d_l2"', "column d_l2 means something else"),
     ('column = "my distance"', "column my distance is no plain name")],
)  # fmt: skip
def test_a_column_that_is_taken_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, told, message
):
    module = f"metric_{len(told)}"
    own = own_metric(tmp_path, monkeypatch, told, module)
    world = small_world(tmp_path / "world", records=2)
    assert cli.main([*own, *world]) != 0
    (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("error: ")]
    assert message in line
    assert not list(tmp_path.glob("outputs/*/cases.csv"))
    sys.modules.pop(module, None)
