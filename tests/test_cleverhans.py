"""cleverhans 4's fixed-budget attacks as adapters, and our own against them."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import beats, environment, random_network
from test_pgd import plane

import ecgadv
from ecgadv import config
from ecgadv.api import make_attack
from ecgadv.errors import BackendError, ConfigError
from ecgadv.threat import metrics

NAMES = ("ch_fgm", "ch_pgd", "ch_mim")
ITERATED = ("ch_pgd", "ch_mim")


@pytest.mark.parametrize("name", NAMES)
def test_l2_success_begins_at_the_distance_of_the_plane(name):
    victim, x, lengths = plane(metrics.get("l2"), 48)
    # The plane is at a Euclidean distance of 1; one step along the gradient already points there.
    above, below = (
        ecgadv.attack(victim, x, target=1, method=name, lengths=lengths, budget=b)
        for b in (1.03, 0.97)
    )
    own = ecgadv.attack(victim, x, target=1, method="pgd", lengths=lengths, budget=1.03**2)
    assert above.success.all()
    assert own.success.all()
    assert not below.success.any()
    np.testing.assert_allclose(np.linalg.norm(above.delta, axis=1), 1.03, rtol=1e-3)
    assert not above.delta[:, 48:].any()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", NAMES)
def test_the_budget_holds_and_a_larger_one_succeeds_more(name, norm):
    victim, x = random_network(), beats(4, 600)
    target = victim.logits(x).argmin(1)
    margins = []
    # Beyond these one step of ``ch_fgm`` along the signs overshoots.
    for budget in (0.01, 0.1, 1.0) if norm == "l2" else (0.003, 0.01, 0.03):
        options = {"budget": budget, "norm": norm} | ({"steps": 8} if name in ITERATED else {})
        found = ecgadv.attack(victim, x, target, method=name, **options)
        size = np.linalg.norm(found.delta, axis=1, ord=2 if norm == "l2" else np.inf)
        # x + δ is rounded to float32 inside the library.
        assert (size <= budget * (1 + 1e-3) + 1e-5).all()
        assert (size >= 0.9 * budget).all()
        margins.append(found.margin)
        assert (found.n_gradients == (8 if name in ITERATED else 1)).all()
    assert (np.diff(margins, axis=0) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_targeted_and_untargeted_cases_may_share_a_batch(name):
    victim, x = random_network(), beats(3, 600)
    options = {"method": name, "budget": 3.0}
    mixed = ecgadv.attack(victim, x, [1, "untargeted", 2], **options)
    untargeted = ecgadv.attack(victim, x, "untargeted", **options)
    targeted = ecgadv.attack(victim, x, [1, 1, 2], **options)
    np.testing.assert_allclose(mixed.delta[1], untargeted.delta[1], atol=1e-5)
    np.testing.assert_allclose(mixed.delta[[0, 2]], targeted.delta[[0, 2]], atol=1e-5)
    assert np.abs(untargeted.delta[0] - targeted.delta[0]).max() > 1e-3


def test_ours_reaches_at_least_the_margin_of_cleverhans():
    victim, x = random_network(), beats(6, 600)
    target = victim.logits(x).argmin(1)
    ours = ecgadv.attack(victim, x, target, method="pgd", budget=1.0, steps=40)
    theirs = ecgadv.attack(victim, x, target, method="ch_pgd", budget=1.0, steps=40)
    assert np.median(ours.margin - theirs.margin) >= 0
    assert ours.success.sum() >= theirs.success.sum()


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_is_kept(name):
    mask = np.zeros(600, bool)
    mask[100:200] = True
    found = ecgadv.attack(random_network(), beats(2, 600), 1, method=name, mask=mask, norm="linf")
    assert found.delta[:, mask].any()
    assert not found.delta[:, ~mask].any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ch_fgm", {"budget": 0.0}),
        ("ch_fgm", {"norm": "l1"}),
        ("ch_pgd", {"steps": 0}),
        ("ch_pgd", {"step_size": 1.5}),
        ("ch_mim", {"decay": 2.0}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(name, options):
    (option,) = options
    with pytest.raises(ConfigError, match=f"attack.{option}="):
        make_attack(name, **options)


def test_shifts_are_refused():
    from ecgadv.study.setting import Setting

    attack, form = make_attack("ch_pgd"), metrics.get("l2")
    moving = Setting(deployment="local", shifts=2)
    with pytest.raises(ConfigError, match="attack=ch_pgd: cannot average over shifts"):
        moving.study(random_network(), form, attack)
    with pytest.raises(ConfigError, match="attack=ch_pgd: edits recordings, so it needs"):
        Setting(threat_model="type2").study(random_network(), form, attack)


@pytest.mark.parametrize("name", NAMES)
def test_another_backend_is_refused_before_anything_is_loaded(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=f"attack={name} backend=jax: .*backend=tensorflow"):
        config.compose_checked([f"attack={name}", "backend=jax", f"paths.root={tmp_path}"])


def test_the_python_interface_refuses_another_backend_without_importing_cleverhans():
    code = (
        "import sys, keras\n"
        "keras.backend.backend = lambda: 'jax'\n"
        "before = 'tensorflow' in sys.modules\n"
        "from ecgadv.api import make_attack\n"
        "try:\n"
        "    make_attack('ch_pgd').solver(None)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, ('cleverhans.tf2' in sys.modules), before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.stdout.startswith("BackendError attack=ch_pgd: cleverhans needs backend=tensorflow")
    assert done.stdout.split()[-2] == "False"


def test_a_grid_of_budgets_is_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = f"paths.root={tmp_path}"
    jobs = config.compose_checked(["-m", "experiment=budget_grid", root]).jobs
    budgets = [j.config["attack"]["budget"] for j in jobs]
    assert budgets == sorted(budgets)
    assert len(budgets) == 8
    jobs = config.compose_checked(
        ["-m", "experiment=budget_grid", "attack=ch_mim", "attack.budget=1,3", root]
    ).jobs
    assert [(j.config["attack"]["name"], j.config["attack"]["budget"]) for j in jobs] == [
        ("ch_mim", 1), ("ch_mim", 3),
    ]  # fmt: skip
