"""One way from a case to its verdict, whatever interface; and no success that is free."""

import json

import numpy as np
import pytest
from helpers import beats, in_process, random_network, small_world, table

import ecgadv
from ecgadv.attacks.eot import EOT
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.errors import ConfigError
from ecgadv.study.judge import Judge
from ecgadv.study.study import Chunk, Study
from ecgadv.threat.channel import Channel
from ecgadv.threat.metrics import get as metric_named
from ecgadv.threat.objectives import UNTARGETED
from ecgadv.victims.loading import Victim

N = 400


# --- no success for nothing -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def victim():
    return random_network(N)


@pytest.fixture(scope="module")
def x():
    return beats(6, N, seed=4)


class Position(Victim):
    """Reads where the largest sample lies: class 0 in the first quarter, and so on."""

    def __init__(self, n=N, gain=40.0):
        def forward(z):
            from keras import ops

            quarters = ops.reshape(z[..., 0], (-1, 4, n // 4))
            return gain * ops.logsumexp(8.0 * quarters, axis=-1) / 8.0

        super().__init__(forward, name="position", n=n, fs=100)


def bump(at, n=N, height=8.0):
    wave = height * np.exp(-0.5 * ((np.arange(n) - at) / 3.0) ** 2)
    return ((wave - wave.mean()) / wave.std()).astype(np.float32)


def test_a_device_that_reads_the_target_before_anything_is_added_has_no_case():
    """From a random onset the largest sample lies anywhere: at three of four onsets elsewhere."""
    subject = Position()
    found = ecgadv.attack(
        subject, bump(50)[None], target="untargeted", deployment="local", shifts=4, steps=4,
        evaluation_shifts=40,
    )  # fmt: skip
    assert found.status.tolist() == ["skipped"]
    assert not found.success[0]
    assert not found.delta.any()
    assert found.n_gradients[0] == 0
    assert "at fewer than half" in found.message[0]


def test_a_rate_at_random_onsets_counts_where_the_record_was_read_right():
    judge = Judge(Position(), Channel(moving=True), shifts=200, seed=0)
    x = bump(50)
    (trial,) = judge.trials(
        x[None], np.zeros((1, N), np.float32), np.array([N]), np.array([0]), np.array([UNTARGETED])
    )
    assert trial.n_shifts == 200
    assert trial.hits.sum() == 200
    assert 20 < trial.n_clean < 90
    assert trial.n_success == 0
    assert trial.rate == 0.0
    # At every onset that counts the unperturbed record is read as its source.
    read = judge.read(x, None, N, trial.onsets).argmax(1)
    assert (read == 0).sum() == trial.n_clean


def test_the_class_of_a_record_is_what_the_deployment_reads(victim):
    """Not what the bare network says of what was handed in: lengths left out, raw units."""
    rows = beats(8, N, seed=11)
    rows[:, 300:] = 0
    for scale in (1.0, 0.2, 30.0):
        handed = (scale * (rows + 0.4)).astype(np.float32)
        study = Study(victim, metric_named("l2"), MinNorm(steps=6), Judge(victim))
        found = study.run(Chunk(handed, np.full(8, N), None, np.full(8, UNTARGETED)))
        before = victim.pipeline(handed).argmax(1)
        after = victim.pipeline(handed.astype(float) + found.delta).argmax(1)
        np.testing.assert_array_equal(found.source, before)
        for trial, was, now in zip(found.trials, before, after, strict=True):
            assert not (trial.success and was == now)


def test_a_target_that_is_read_already_is_skipped(victim, x):
    source = victim.pipeline(x).argmax(1)
    found = ecgadv.attack(victim, x, target=source, steps=3)
    assert set(found.status) == {"skipped"}
    assert not found.success.any()
    assert all("before anything is added" in message for message in found.message)
    mixed = ecgadv.attack(victim, x, target=[int(source[0]), *["untargeted"] * 5], steps=20)
    assert mixed.status.tolist() == ["skipped", *["ok"] * 5]
    assert not mixed.delta[0].any()
    alone = ecgadv.attack(victim, x[1:], target="untargeted", steps=20)
    np.testing.assert_array_equal(mixed.success[1:], alone.success)
    np.testing.assert_allclose(mixed.distance[1:], alone.distance, rtol=1e-3)


def test_a_short_record_is_read_with_its_padding_where_that_is_perturbed(victim):
    """std over all samples: another reading than over the record's own, and the one that counts."""
    short = np.zeros((12, N), np.float32)
    for row, wave in enumerate(beats(12, 100, seed=3)):
        short[row, :100] = wave
    own = victim.pipeline(short, np.full(12, 100)).argmax(1)
    padded = victim.pipeline(short).argmax(1)
    study = Study(victim, metric_named("l2"), MinNorm(steps=4, perturb_padding=True), Judge(victim))
    found = study.run(Chunk(short, np.full(12, 100), own, np.full(12, UNTARGETED)))
    assert [status == "skipped" for status in found.status] == (own != padded).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_perturbation_that_is_not_finite_never_counts(victim, x, bad):
    delta = ecgadv.attack(victim, x, steps=20).delta
    source = victim.pipeline(x).argmax(1)
    spoiled = delta.copy()
    spoiled[2, 7] = bad
    lengths, away = np.full(6, N), np.full(6, UNTARGETED)
    trials = Judge(victim).trials(x, spoiled, lengths, source, away)
    assert [trial.success for trial in trials] == [True, True, False, True, True, True]


def test_a_run_at_a_device_says_what_it_left_out(tmp_path, capsys):
    network = random_network(9000)
    overrides = small_world(tmp_path, network=network)
    code, run = in_process(
        *overrides, "deployment=local", "target=untargeted", "attack.steps=5",
        "evaluation.shifts=30", f"paths.root={tmp_path}",
    )  # fmt: skip
    assert code == 0
    rows = table(run)
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert 0 < len(skipped) < len(rows)
    assert all("random onsets before anything is added" in row["message"] for row in skipped)
    assert {row["success"] for row in skipped} == {"false"}
    assert f"{len(skipped)} of {len(rows)} cases are left out" in capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text())
    assert summary["n_skipped"] == len(skipped)
    assert summary["n_cases"] == len(rows) - len(skipped)
    for row in rows:
        if row["success"] == "true":
            assert float(row["d_l2"]) > 0
            assert np.isfinite(float(row["snr_db"]))


# --- options that were given are used -------------------------------------------------------------


def bare(classes=4, n=400):
    from keras import ops

    weights = np.random.default_rng(1).normal(size=(n, classes)).astype("float32").cumsum(0) / 20
    W = ops.convert_to_tensor(weights)
    return ecgadv.load_victim(
        lambda z: ops.matmul(ops.squeeze(z, -1), W), n=n, fs=100, standardise="none"
    )


def test_an_attack_object_keeps_its_options_and_takes_those_of_the_call():
    subject = bare()
    x = np.random.default_rng(0).normal(size=(3, 400)).astype("float32")

    def go(method, **options):
        return ecgadv.attack(subject, x, target="untargeted", method=method, **options)

    masked = go(MinNorm(steps=20, mask=(1, 2))).delta
    assert np.flatnonzero(masked.any(0))[[0, -1]].tolist() == [100, 199]
    both = go(MinNorm(steps=20, mask=(1, 2)), mask=np.arange(400) < 150).delta
    assert np.flatnonzero(both.any(0))[[0, -1]].tolist() == [100, 149]
    assert (go(MinNorm(steps=20), steps=60).n_gradients == 60).all()
    assert (go(MinNorm(steps=20)).n_gradients == 20).all()
    assert np.abs(go(MinNorm(steps=20), peak=1e-3).delta).max() <= 1e-3
    assert np.abs(go(MinNorm(steps=20, peak=1e-3)).delta).max() <= 1e-3
    with pytest.raises(ConfigError, match=r"^pekk=1: .* did you mean peak\?$"):
        go(MinNorm(steps=20), pekk=1)
    with pytest.raises(ConfigError, match=r"^pekk=1: .* did you mean peak\?$"):
        go("minnorm", pekk=1)
    y = x.copy()
    y[:, 300:] = 0
    lengths = [300] * 3
    for options in (
        {"method": MinNorm(steps=20, perturb_padding=True)},
        {"method": "minnorm", "steps": 20, "perturb_padding": True},
    ):
        found = ecgadv.attack(subject, y, target="untargeted", lengths=lengths, **options)
        assert found.delta[:, 300:].any()
    kept = ecgadv.attack(
        subject, y, target="untargeted", lengths=lengths, perturb_padding=False,
        method=MinNorm(steps=20, perturb_padding=True),
    )  # fmt: skip
    assert not kept.delta[:, 300:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shifts": 4}, "shifts=4: attack minnorm has no such option"),
        ({"window": 100}, "window=100: attack minnorm has no such option"),
        ({"deployment": "local", "window": 100}, "window=100"),
        ({"deployment": "edge"}, "deployment=edge"),
        ({"threat_model": "type3"}, "threat_model=type3"),
        ({"method": "eot", "threat_model": "type1"}, "method=eot: is for injected signals"),
        ({"method": EOT(steps=3), "perturb_padding": True}, "perturb_padding=True"),
        ({"method": "ch_fgm", "threat_model": "type2"}, "takes no injected signals"),
        ({"deployment": "local", "shifts": 2.5}, "shifts=2.5: must be a whole number"),
        ({"deployment": "local", "evaluation_shifts": 0}, "evaluation_shifts=0"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_an_option_that_would_not_be_used_is_refused(victim, x, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ecgadv.attack(victim, x, target=1, steps=None, **options)
    assert "\n" not in str(caught.value)


def test_shifts_that_nobody_judges_are_refused(tmp_path, capsys):
    from ecgadv import cli

    assert cli.main(["eot=shift", f"paths.root={tmp_path}"]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: eot=shift: ")
    assert "deployment=local" in line
    assert not (tmp_path / "outputs").exists()


# --- one way --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    network = random_network(9000)
    return folder, small_world(folder, network=network), network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        (["metric=diffl2"], {"metric": "diffl2", "steps": 6}),
        (
            ["deployment=local", "eot=shift", "eot.shifts=3", "evaluation.shifts=20"],
            {"deployment": "local", "shifts": 3, "evaluation_shifts": 20, "steps": 6},
        ),
        (
            ["threat_model=type2", "eot.shifts=3", "evaluation.shifts=20", "window=20s",
             "evaluation.max_records=1"],
            {"method": "eot", "shifts": 3, "evaluation_shifts": 20, "window": "20s", "steps": 6},
        ),
        (
            ["threat_model=type2", "deployment=cloud", "attack=minnorm", "eot.shifts=2",
             "evaluation.shifts=20", "evaluation.max_records=1"],
            {"threat_model": "type2", "deployment": "cloud", "shifts": 2, "evaluation_shifts": 20,
             "steps": 6},
        ),
        (
            ["threat_model=type2", "attack.schedule=paper", "evaluation.shifts=5", "window=29.9s",
             "evaluation.max_records=1", "selection.per_class=1"],
            {"method": "eot", "schedule": "paper", "evaluation_shifts": 5, "window": "29.9s",
             "steps": 6},
        ),
    ],
    ids=["type1-cloud", "type1-local", "type2-local", "type2-cloud", "paper"],
)  # fmt: skip
def test_the_command_line_and_the_interface_give_the_same_bytes(world, overrides, options):
    folder, given, network = world
    code, run = in_process(
        *given, *overrides, "attack.steps=6", "target=untargeted", f"paths.root={folder}"
    )
    assert code == 0
    stored = ecgadv.load_run(run)
    cases = stored.cases
    x, lengths = stored.inputs_of(cases["case_id"].tolist())
    found = ecgadv.attack(
        network, x, target="untargeted", lengths=lengths,
        batch_size=json.loads((run / "plan.json").read_text())["size"], **options,
    )  # fmt: skip
    # The interface has no labels: it takes for the class what the device reads most often.
    done = (cases["status"] == "ok").to_numpy()
    assert (found.status[done] == "ok").all()
    rows = cases[done]
    assert len(rows) >= 1
    # Chunks of the same cases and the same random numbers: the same bytes.
    np.testing.assert_array_equal(found.delta[done], stored.delta)
    np.testing.assert_array_equal(found.success[done], rows["success"])
    np.testing.assert_allclose(found.margin[done], rows["margin"], rtol=1e-8)
    np.testing.assert_array_equal(found.n_gradients[done], rows["n_gradients"])
    if rows["target_rate"].notna().any():
        np.testing.assert_allclose(found.target_rate[done], rows["target_rate"], rtol=1e-8)


@pytest.mark.slow
def test_the_benchmark_measures_what_the_command_line_finds(world, tmp_path):
    _, given, _ = world
    code, run = in_process(*given, "attack.steps=5", "batch_size=6", f"paths.root={tmp_path}")
    assert code == 0
    kept = [o for o in given if not o.startswith("tracking")]
    from ecgadv import cli

    argv = ["task=benchmark", "benchmark.methods=[minnorm_5]", "benchmark.metrics=[l2]",
            "benchmark.scaling=[]", "benchmark.per_class=9", f"benchmark.out={tmp_path / 'rows'}",
            "batch_size=6", "tracking=none", f"paths.root={tmp_path / 'b'}"]  # fmt: skip
    assert cli.main([*kept, *argv]) == 0
    (file,) = (tmp_path / "rows").glob("l2-minnorm_5-*.json")
    row = json.loads(file.read_text())
    cases = {c["case_id"]: c for c in table(run) if c["status"] == "ok"}
    assert set(row["case_id"]) == set(cases)
    for name, distance, success in zip(
        row["case_id"], row["distance"], row["success"], strict=True
    ):
        assert float(cases[name]["d_l2"]) == pytest.approx(distance, rel=1e-8)
        assert (cases[name]["success"] == "true") == success
