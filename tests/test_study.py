"""One way from a case to its verdict, whatever interface; and no success that is free."""

import csv
import json

import numpy as np
import pytest
from helpers import beats, in_process, random_network, small_world, table

import ecgadv
from ecgadv.attacks.engine import Solution
from ecgadv.attacks.eot import EOT
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.errors import ConfigError
from ecgadv.study.judge import Judge, trial_of, untried
from ecgadv.study.study import Chunk, Study
from ecgadv.tasks.common import open_records
from ecgadv.threat.channel import Channel
from ecgadv.threat.goals import UNTARGETED
from ecgadv.threat.metrics import get as metric_named
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


def test_a_skipped_case_has_no_rate(victim, x):
    found = ecgadv.attack(victim, x, target=victim.pipeline(x).argmax(1), steps=2)
    assert np.isnan(found.target_rate).all()
    away = ecgadv.attack(victim, x, target="untargeted", steps=20)
    assert (away.target_rate == 1.0).all()


def test_only_onsets_that_count_can_leave_the_class():
    """Half of the onsets read another class before: none of them is the perturbation's doing."""
    before = 9.0 * np.eye(4)[[0] * 50 + [1] * 50]
    still = trial_of(before, before, 0, UNTARGETED)
    assert still.exists
    assert (still.n_clean, still.n_success, still.n_left) == (50, 0, 0)
    assert not still.left
    lost = trial_of(before, np.full_like(before, np.nan), 1, 2)
    assert (lost.n_left, lost.left, lost.success) == (0, False, False)
    moved = trial_of(before, 9.0 * np.eye(4)[[2] * 100], 0, UNTARGETED)
    assert moved.left
    assert moved.success
    assert not untried(4).exists
    assert np.isnan(untried(4).rate)


def test_outputs_that_are_not_finite_on_what_was_found_are_said():
    def forward(z):
        from keras import ops

        # Its logits overflow where a sample is large, with gradients that are finite before.
        level = ops.max(ops.abs(z[..., 0]), axis=-1)
        logits = ops.stack([0 * level + 4.0, level, 0 * level, 0 * level], axis=-1)
        return ops.where(level[:, None] > 3.9, logits * float("inf"), logits)

    subject = Victim(forward, name="overflow", n=100, fs=100)
    x = np.tile([1.0, -1.0], 50)[None].astype(np.float32)

    def jump(cases, tick):
        delta = np.zeros_like(cases.x)
        delta[:, 3] = 30.0
        count = len(delta)
        zero = np.zeros(count, int)
        return Solution(delta, np.ones(count, bool), zero, zero)

    study = Study(subject, metric_named("l2"), MinNorm(steps=4), Judge(subject))
    found = study.run(Chunk(x, np.array([100]), np.array([0]), np.array([1])), solve=jump)
    assert found.status == ["failed"]
    assert "not finite" in found.message[0]


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
        ({"method": "eot", "window": 2.7}, "window=2.7: must be a whole number"),
        ({"method": "eot", "deployment": "cloud", "filter": "butterworth"}, "has no filter"),
        ({"method": "eot", "schedule": "paper", "shifts": 3}, "shifts=3: schedule=paper"),
        ({"method": "eot", "mask": np.ones(N)}, "mask: threat_model=type2"),
        ({"pekk": None}, "pekk=None"),
        ({"universal": 2}, "universal=2 method=minnorm: needs method=eot"),
        ({"method": "eot", "universal": 99}, "universal=99"),
        ({"method": "eot", "universal": -1}, "universal=-1"),
        ({"method": "eot", "universal": 1.5}, "universal=1.5"),
        ({"method": "eot", "train_records": 2}, "train_records=2: say universal"),
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
@pytest.mark.parametrize("universal", ["true", "all"])
def test_a_universal_signal_has_the_same_bytes_too(tmp_path, universal):
    network = random_network(9000)
    code, run = in_process(
        *small_world(tmp_path, records=40, network=network), "threat_model=type2",
        f"universal={universal}", "attack.train_records=3", "attack.steps=8", "eot.shifts=3",
        "evaluation.shifts=10", "evaluation.max_records=4", f"paths.root={tmp_path}",
        *(["selection.source=[N]"] if universal == "true" else ["target=noise"]),
    )  # fmt: skip
    assert code == 0
    rows, cfg = table(run), json.loads((run / "config.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    with (run / "evaluation.csv").open(newline="") as file:
        tried = [r for r in csv.DictReader(file) if r["source"] == "N" or universal == "all"]
    pool = [name for names in summary["training_records"].values() for name in names]
    records = open_records(cfg)
    names = [*pool, *dict.fromkeys(r["victim_record"] for r in tried)]
    x = records.batch([records.index(name) for name in names], 9000, "lead").x
    found = ecgadv.attack(
        network, x, target=[row["target"] for row in rows], method="eot", steps=8, shifts=3,
        evaluation_shifts=10, universal=3,
        batch_size=json.loads((run / "plan.json").read_text())["size"],
    )  # fmt: skip
    assert len(rows) == (3 if universal == "true" else 1)
    stored = ecgadv.load_run(run)
    np.testing.assert_array_equal(found.delta, stored.delta)
    assert found.status.tolist() == [row["status"] for row in rows] == ["ok"] * len(rows)
    for key in ("n_gradients", "margin", "p_target", "target_rate"):
        told = [float(row[key]) for row in rows]
        np.testing.assert_allclose(getattr(found, key), told, rtol=1e-8, err_msg=key)
    assert [str(ok).lower() for ok in found.success] == [row["success"] for row in rows]


def test_one_signal_for_all_records_is_tried_on_none(victim):
    x = beats(30, N, seed=12)
    read = victim.pipeline(x).argmax(1)
    options = {"method": "eot", "steps": 4, "shifts": 2, "evaluation_shifts": 5}
    kin = x[read == np.bincount(read).argmax()]
    own = int(victim.pipeline(kin).argmax(1)[0])
    other = (own + 1) % 4
    whole = ecgadv.attack(victim, kin, target=[own, other], universal=True, **options)
    assert whole.status.tolist() == ["skipped", "ok"]
    assert whole.delta.shape == (2, N)
    assert not whole.delta[0].any()
    assert np.isnan(whole.target_rate).all()
    assert whole.message[1].startswith("tried on no record")
    # Untargeted from one class, and it is the first records that count.
    part = ecgadv.attack(victim, kin, target="untargeted", universal=3, **options)
    again = ecgadv.attack(victim, kin[:5], target="untargeted", universal=3, **options)
    np.testing.assert_array_equal(part.delta, again.delta)
    assert 0 <= part.target_rate[0] <= 1
    with pytest.raises(ConfigError, match="universal=30 target=untargeted: the records"):
        ecgadv.attack(victim, x, target="untargeted", universal=30, **options)


def test_records_of_a_pool_take_turns_where_the_onset_is_known(victim):
    x = beats(30, N, seed=12)
    read = victim.pipeline(x).argmax(1)
    kin = x[read == np.bincount(read).argmax()][:4]
    target = int((victim.pipeline(kin).argmax(1)[0] + 1) % 4)
    options = {"method": "eot", "steps": 6, "shifts": 0, "evaluation_shifts": 5}
    found = ecgadv.attack(victim, kin, target=target, universal=3, **options)
    assert found.delta.any()
    assert found.n_gradients.tolist() == [6]


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


# --- several leads, another rate, other classes ---------------------------------------------------

CLASSES12 = ["NORM", "MI", "STTC", "CD", "HYP"]
"""Classes of a 12-lead network at 500 Hz, 10 s."""


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A random 12-lead network and records that it reads as every class; overrides of a run."""
    import keras

    folder = tmp_path_factory.mktemp("twelve")
    keras.utils.set_random_seed(4)
    inputs = keras.Input((5000, 12))
    y = keras.layers.Conv1D(8, 15, strides=5, activation="tanh")(inputs)
    y = keras.layers.Conv1D(8, 9, strides=4, activation="relu")(y)
    pooled = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling1D()(y), keras.layers.GlobalMaxPooling1D()(y)]
    )
    head = keras.layers.Dense(5)
    model = keras.Model(inputs, head(pooled))
    time = np.arange(5000) / 500
    rng = np.random.default_rng(0)
    records = []
    for _ in range(20):
        beat = np.exp(-0.5 * (((time + rng.uniform()) % rng.uniform(0.5, 1.1) - 0.3) / 0.012) ** 2)
        gains = rng.uniform(0.2, 1.5, 12)
        records.append(beat[:, None] * gains + 0.05 * rng.normal(size=(5000, 12)))
    raw = np.array(records)
    x = (raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True)
    logits = model.predict(x.astype("float32"), verbose=0)
    kernel, _ = head.get_weights()
    head.set_weights([3 * kernel / logits.std(0), -3 * logits.mean(0) / logits.std(0)])
    model.save(folder / "twelve.keras")
    labels = model.predict(x.astype("float32"), verbose=0).argmax(1)
    np.savez(
        folder / "records.npz", signals=raw, fs=500.0, labels=np.array(CLASSES12)[labels],
        ids=np.array([f"R{i:02d}" for i in range(20)]),
    )  # fmt: skip
    return [
        "data=arrays", f"data.root={folder / 'records.npz'}", "victim=keras",
        f"victim.path={folder / 'twelve.keras'}", f"victim.classes=[{','.join(CLASSES12)}]",
        "victim.fs=500", "tracking=none", f"paths.data={folder / 'cache'}", "selection.per_class=1",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["attack.band=[0.5,200]", "attack.steps=4"],
        ["deployment=local", "eot=shift", "eot.shifts=2", "evaluation.shifts=4", "attack.steps=3"],
        ["threat_model=type2", "window=2000", "attack.steps=3", "eot.shifts=2",
         "evaluation.shifts=3", "evaluation.max_records=1", "attack.band=[0.5,200]"],
    ],
    ids=["type1", "local", "type2"],
)  # fmt: skip
def test_a_network_of_twelve_leads_takes_every_threat(twelve, tmp_path, more):
    code, run = in_process(*twelve, "target=MI", *more, f"paths.root={tmp_path}")
    assert code == 0
    stored = ecgadv.load_run(run)
    assert stored.delta.shape[1:] == (5000, 12)
    assert stored.delta.any()
    assert (run / "report.html").stat().st_size > 10_000
    spectrum = np.abs(np.fft.rfft(stored.delta.astype(float), axis=1)) ** 2
    if "attack.band=[0.5,200]" in more and "window=2000" not in more:
        frequency = np.fft.rfftfreq(5000, 1 / 500)
        outside = (frequency < 0.5 - 1e-6) | (frequency > 200 + 1e-6)
        assert spectrum[:, outside].sum() < 1e-6 * spectrum.sum()
    if "window=2000" in more:
        assert not stored.delta[:, 2000:].any()
        row = table(run)[0]
        assert float(row["mean_power"]) <= 1.0
        signal = stored.delta[0].astype(float) * stored.scale_mv[0]
        assert float(row["peak_mv"]) == pytest.approx(np.abs(signal).max(), rel=1e-6)
        assert float(row["rms_mv"]) == pytest.approx(
            np.sqrt((signal**2).sum() / (12 * 2000)), rel=1e-6
        )


@pytest.mark.slow
def test_injected_signals_of_twelve_leads_are_tried_again(twelve, tmp_path):
    more = ["threat_model=type2", "attack.steps=2", "eot.shifts=2", "evaluation.shifts=3",
            "evaluation.max_records=1", "target=MI"]  # fmt: skip
    code, run = in_process(*twelve, *more, f"paths.root={tmp_path}")
    assert code == 0
    kept = [o for o in twelve if not o.startswith(("data", "selection"))]
    again = ["task=evaluate", f"evaluate.run={run}", "evaluation.shifts=3",
             "evaluation.max_records=1", f"paths.root={tmp_path / 'again'}"]  # fmt: skip
    code, judged = in_process(*kept, *again)
    assert code == 0
    assert (judged / "evaluation.csv").read_bytes() == (run / "evaluation.csv").read_bytes()


@pytest.mark.slow
def test_the_benchmark_takes_twelve_leads(twelve, tmp_path):
    from ecgadv import cli

    argv = ["task=benchmark", "benchmark.methods=[minnorm_3]", "benchmark.metrics=[diffl2]",
            "benchmark.scaling=[]", "benchmark.per_class=1", "target=MI",
            f"benchmark.out={tmp_path / 'rows'}", f"paths.root={tmp_path}"]  # fmt: skip
    assert cli.main([*twelve, *argv]) == 0
    (file,) = (tmp_path / "rows").glob("diffl2-minnorm_3-*.json")
    row = json.loads(file.read_text())
    assert len(row["case_id"]) >= 2
    assert all(distance > 0 for distance in row["distance"])


def test_the_attackers_model_of_several_leads_is_what_arrives():
    """Tensors of the attack and arrays of the judge: the same sum, standardised, at every onset."""
    from ecgadv import backend
    from ecgadv.threat.channel import Views
    from ecgadv.threat.front_ends import Rectangular
    from ecgadv.threat.objectives import Cases, Objective

    n, leads, rng = 64, 3, np.random.default_rng(0)
    seen = {}

    class Mirror(Victim):
        def forward(self, z):
            seen["z"] = z
            return z[:, :4]

    subject = Mirror(lambda z: z, name="mirror", n=n, leads=leads, fs=100)
    x, delta = rng.normal(size=(2, 1, leads * n)).astype(np.float32)
    one = np.ones_like(x)
    onsets = np.array([[[0, 5, 40]]], np.int32)
    own, views = np.full(1, n), Views(0 * onsets, onsets)
    cases = Cases(x, one, one, np.zeros(1), np.ones(1), own, views).on_device()
    turn, end = backend.tensor(np.zeros(1, np.int32)), Rectangular(100, mains=(20.0,))
    for channel in (
        Channel(moving=True, leads=leads), Channel(True, True, n, end, leads=leads),
        Channel(True, True, n, end, "filter_shift", leads), Channel(True, True, n, leads=leads),
    ):  # fmt: skip
        objective = Objective(subject, channel=channel, shifts=3)
        objective(backend.tensor(delta), cases, turn)
        exact = (part.astype(float) for part in (x, delta))
        arriving = channel.arrive(*exact, Views(*(part[:, 0] for part in views)), own)[0]
        expected = subject.standardise_array(arriving, np.full(3, n))
        np.testing.assert_allclose(backend.to_numpy(seen["z"]), expected, atol=2e-5)
