"""A goal and a filter of a user's own: one file and one yaml each, run by the command line."""

import json
import os

import numpy as np
import pytest
from helpers import (
    beats,
    environment,
    error_lines,
    execute,
    in_process,
    random_network,
    run_folder,
    small_world,
    table,
)  # fmt: skip

import ecgadv
from ecgadv import backend, config
from ecgadv.errors import ConfigError
from ecgadv.study.setting import Setting
from ecgadv.threat import goals
from ecgadv.threat.channel import Channel, Views
from ecgadv.threat.front_ends import FRONT_ENDS, Butterworth, from_config
from ecgadv.threat.goals import AIM_MARGIN, SUCCESS_MARGIN, UNTARGETED, Aim, Exclusive, Goal
from ecgadv.threat.goals import get as goal_named
from ecgadv.threat.objectives import Cases, Objective

OWN = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ecgadv.threat.both import ops_of
from ecgadv.threat.front_ends import FrontEnd
from ecgadv.threat.goals import Goal


@dataclass(frozen=True)
class Average(FrontEnd):
    name: ClassVar[str] = "average"
    taps: int = 5

    def array(self, p):
        total = np.cumsum(np.asarray(p, np.float64), axis=-1)
        earlier = np.zeros_like(total)
        earlier[..., self.taps :] = total[..., : -self.taps]
        return (total - earlier) / self.taps


@dataclass(frozen=True)
class Louder(Goal):
    name: ClassVar[str] = "louder"
    by: float = 1.0

    def margin(self, logits, aim):
        xp = ops_of(logits)
        named = xp.where(xp.arange(logits.shape[-1]) == aim.target[:, None], 1.0, 0.0)
        return xp.sum((logits - aim.clean) * named, axis=-1) - self.by
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A module and options of a user's own; overrides and environment that find them."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "own_threat.py").write_text(OWN)
    for group, name, target, option in (
        ("goal", "louder", "Louder", "by: 0.5"), ("filter", "average", "Average", "taps: 9")
    ):  # fmt: skip
        yaml = f"name: {name}\n_target_: own_threat.{target}\n{option}\n"
        (folder / "my_conf" / group).mkdir(parents=True)
        (folder / "my_conf" / group / f"{name}.yaml").write_text(yaml)
    path = os.pathsep.join([str(folder), environment()["PYTHONPATH"]])
    search = f"hydra.searchpath=[file://{folder / 'my_conf'}]"
    return folder, search, environment(PYTHONPATH=path)


@pytest.mark.slow
def test_a_goal_of_the_users_own_runs_by_one_command(mine, tmp_path):
    folder, _, env = mine
    given = [*small_world(tmp_path), "target=noise", "attack.steps=15", f"paths.root={tmp_path}"]
    own = ["--config-dir", str(folder / "my_conf"), "goal=louder", "goal.by=0.75"]
    run = run_folder(execute(*given, *own, env=env))
    rows = [row for row in table(run) if row["status"] == "ok"]
    assert len(rows) >= 3
    assert {row["goal"] for row in rows} == {"louder"}
    assert all(row["success"] == "true" for row in rows)
    assert json.loads((run / "config.json").read_text())["goal"]["by"] == 0.75
    stored = ecgadv.load_run(run)
    x, lengths = stored.inputs_of([row["case_id"] for row in rows])
    victim = ecgadv.load_victim(tmp_path / "small.keras")
    grown = victim.pipeline(x + stored.delta, lengths)[:, 3] - victim.pipeline(x, lengths)[:, 3]
    assert (grown >= 0.75).all()
    # The walk ends where the goal is reached, not where the class is.
    assert np.median(grown) < 0.9
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_a_filter_of_the_users_own_is_modelled_and_real(mine, tmp_path, monkeypatch):
    folder, search, env = mine
    given = [
        *small_world(tmp_path), "threat_model=type2", "target=noise", "attack.steps=4",
        "eot.shifts=2", "evaluation.shifts=4", "evaluation.max_records=1", "selection.per_class=1",
        "filter=average", "evaluation.filter=average", "filter.taps=3", f"paths.root={tmp_path}",
    ]  # fmt: skip
    run = run_folder(execute(*given, search, env=env))
    stored = json.loads((run / "config.json").read_text())
    assert stored["filter"]["taps"] == 3
    assert stored["evaluation"]["front_end"] == {
        "name": "average", "_target_": "own_threat.Average", "taps": 9
    }  # fmt: skip
    assert (run / "report.html").is_file()
    # The judge reads behind it: 9 samples are averaged at every onset.
    monkeypatch.syspath_prepend(str(folder))
    judge = Setting.of(stored, 300).judge(ecgadv.load_victim(tmp_path / "small.keras"))
    assert judge.channel.front_end.taps == 9
    step = judge.channel.front_end.array(np.ones(20))
    np.testing.assert_allclose(step[:9], np.arange(1, 10) / 9)
    # A name that nobody has, in one line.
    wrong = [o for o in given if not o.startswith("evaluation.filter")]
    result = execute(*wrong, "evaluation.filter=averag", search, env=env)
    assert result.returncode == 2
    (line,) = error_lines(result)
    known = "average, butterworth, none, rectangular"
    assert line == f"error: evaluation.filter=averag: must be one of {known}"


def test_what_judges_is_any_option_of_the_group(tmp_path):
    root = f"paths.root={tmp_path}"
    composed = config.compose_checked(["evaluation.filter=rectangular", root])
    assert "front_end" not in composed.config["evaluation"]
    with pytest.raises(ConfigError, match="butterworht: must be one of butterworth, none"):
        config.compose_checked(["evaluation.filter=butterworht", root])
    (tmp_path / "conf" / "filter").mkdir(parents=True)
    (tmp_path / "conf" / "filter" / "mains16.yaml").write_text(
        "defaults:\n  - butterworth\n  - _self_\nmains: [16.7]\n"
    )
    search = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    chosen = config.compose_checked(["evaluation.filter=mains16", search, root]).config
    assert from_config(chosen["evaluation"]["front_end"]) == Butterworth(mains=(16.7,))


def test_the_yaml_of_a_filter_says_what_its_class_does():
    for name, kind in FRONT_ENDS.items():
        cfg = config.compose_checked(["threat_model=type2", f"filter={name}"]).config
        assert from_config(cfg["filter"], 250) == kind(fs=250)


def test_a_causal_filter_needs_arrays_only(mine, monkeypatch):
    monkeypatch.syspath_prepend(str(mine[0]))
    from own_threat import Average

    p = np.random.default_rng(0).normal(size=(2, 3, 400)).astype(np.float32)
    for taps in (4, 7):
        end = Average(taps=taps)
        np.testing.assert_allclose(
            backend.to_numpy(end(backend.tensor(p))), end.array(p), atol=1e-5
        )


# --- the goal that there is -----------------------------------------------------------------------


def readings(seed=0, rows=200, classes=5):
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, classes, (2, rows))
    target[rng.random(rows) < 0.3] = UNTARGETED
    return rng.normal(size=(rows, classes)), Aim(source, target)


def on_device(aim):
    return Aim(*(part if part is None else backend.tensor(part, "int32") for part in aim))


def test_arrays_and_tensors_have_one_margin():
    logits, aim = readings()
    goal = Exclusive()
    expected = []
    for z, s, t in zip(logits, aim.source, aim.target, strict=True):
        own = s if t == UNTARGETED else t
        lead = z[own] - np.delete(z, own).max()
        expected.append(-lead if t == UNTARGETED else lead)
    np.testing.assert_array_equal(goal.margin(logits, aim), expected)
    found = goal.margin(backend.tensor(logits, "float32"), on_device(aim))
    np.testing.assert_allclose(backend.to_numpy(found), expected, atol=1e-6)


def test_success_is_a_margin_and_solvers_aim_beyond_it():
    logits, aim = readings()
    logits[:40] *= 1e-3
    logits[3, 1], logits[4, 2] = np.nan, np.inf
    goal = Exclusive()
    reached = goal.reached(logits, aim)
    sound = np.isfinite(logits).all(1)
    needed = np.maximum(1, np.abs(logits[sound]).max(1))
    margin = goal.margin(logits[sound], Aim(aim.source[sound], aim.target[sound]))
    np.testing.assert_array_equal(reached[sound], margin >= SUCCESS_MARGIN * needed)
    assert not reached[[3, 4]].any()
    outcome = goal.outcome(backend.tensor(logits, "float32"), on_device(aim))
    excess = backend.to_numpy(outcome.excess)
    np.testing.assert_allclose(excess[sound], margin - AIM_MARGIN * needed, atol=1e-5)
    assert reached[excess >= 0].all()
    assert np.isnan(excess[3])


@pytest.mark.parametrize("kind", ["exclusive", "default"])
def test_a_loss_falls_where_the_margin_rises(kind):
    """Cross-entropy, and what a goal has that says its margin only."""

    class Plain(Goal):
        name = "plain"
        margin = Exclusive.margin

    goal = Exclusive() if kind == "exclusive" else Plain()
    logits, aim = readings(rows=50)
    device = on_device(aim)
    loss = backend.to_numpy(goal.loss(backend.tensor(logits, "float32"), device))
    hit = backend.to_numpy(goal.hit(backend.tensor(logits, "float32"), device))
    np.testing.assert_array_equal(hit > 0, goal.margin(logits, aim) >= 0)
    p = goal.probability(logits, aim)
    if kind == "exclusive":
        np.testing.assert_allclose(loss, -np.log(p), rtol=1e-4, atol=1e-6)
    index = np.where(aim.target == UNTARGETED, aim.source, aim.target)
    better = logits.copy()
    better[np.arange(50), index] += np.where(aim.target == UNTARGETED, -5.0, 5.0)
    assert (backend.to_numpy(goal.loss(backend.tensor(better, "float32"), device)) < loss).all()
    assert (goal.probability(better, aim) > p).all()


def test_what_is_no_goal_or_filter_is_one_line():
    assert goals.from_config(None) == Exclusive()
    node = {"name": "odd", "_target_": "collections.Counter"}
    with pytest.raises(ConfigError, match=r"^goal=odd: collections\.Counter makes no Goal$"):
        goals.from_config(node)
    with pytest.raises(ConfigError, match=r"^filter=odd: collections\.Counter makes no FrontEnd$"):
        from_config(node)


def test_an_unknown_goal_is_one_line():
    with pytest.raises(ConfigError, match="goal=swapp: unknown; there are exclusive"):
        goal_named("swapp")
    assert isinstance(goal_named("exclusive"), Exclusive)


def test_a_goal_sees_the_unperturbed_logits_of_every_record_of_a_pool(mine, monkeypatch):
    monkeypatch.syspath_prepend(str(mine[0]))
    from own_threat import Louder

    victim, x = random_network(400), beats(6, 400, seed=4)
    before = victim.pipeline(x).astype(float)
    cases = Cases(
        x[:1], np.ones((1, 400)), np.ones((1, 400)), np.zeros(1), np.full(1, 2), np.full(1, 400),
        Views(np.array([[[3, 1, 3]]]), np.zeros((1, 1, 3), int)),
    ).on_device()  # fmt: skip
    channel = Channel(True, True, pool=x)
    objective = Objective(victim, Louder(by=0.0), channel, shifts=3, clean=before)
    rows = objective.aim(cases, objective.chosen(cases, None), 3)
    np.testing.assert_allclose(backend.to_numpy(rows.clean), before[[3, 1, 3]], rtol=1e-6)
    np.testing.assert_array_equal(backend.to_numpy(rows.source), before[[3, 1, 3]].argmax(1))
    silent = objective(backend.tensor(0 * x[:1]), cases, backend.tensor([0], "int32"))
    np.testing.assert_allclose(backend.to_numpy(silent.margin), 0, atol=1e-4)
    options = {"method": "eot", "shifts": 2, "evaluation_shifts": 8, "steps": 25, "power": 2.0}
    easy, hard = (
        ecgadv.attack(victim, x, target=2, goal=Louder(by=by), universal=4, **options)
        for by in (0.1, 100.0)
    )
    assert easy.success[0]
    assert hard.target_rate[0] == 0


def test_another_goal_is_measured_and_judged_by_itself(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(mine[0]))
    own = ["--config-dir", str(mine[0] / "my_conf"), f"paths.root={tmp_path}"]
    world = [*small_world(tmp_path), "target=noise", "goal=louder"]
    code, run = in_process(*world, *own, "attack.steps=10")
    assert code == 0
    kept = [o for o in world if not o.startswith(("data", "selection", "target", "goal"))]
    again = ["task=evaluate", f"evaluate.run={run}", *kept, *own]
    code, judged = in_process(*again)
    assert code == 0
    summary, earlier = (json.loads((f / "summary.json").read_text()) for f in (judged, run))
    assert summary["n_success"] == earlier["n_success"] > 0
    plain = [*world[:-1], "attack.steps=10", f"paths.root={tmp_path / 'plain'}"]
    code, other = in_process(*plain)
    assert code == 0
    again = ["task=evaluate", f"evaluate.run={other}", *kept, *own, "goal=louder"]
    assert in_process(*again)[0] == 2
    line = [row for row in capsys.readouterr().err.splitlines() if row.startswith("error: ")][-1]
    assert line.startswith("error: goal=louder: the perturbations were made for goal=exclusive")
