"""The Python interface: arrays in, verified arrays out."""

import keras
import numpy as np
import pytest
from helpers import beats, random_network

import ecgadv
from ecgadv.errors import ConfigError, DataError, EcgadvError, VictimError

N = 600
FAST = {"steps": 12}


@pytest.fixture(scope="module")
def victim():
    return random_network(N)


@pytest.fixture(scope="module")
def x():
    return beats(4, N)


@pytest.fixture(scope="module")
def goals(victim, x):
    return np.argsort(victim.logits(x), 1)[:, -2]


@pytest.fixture(scope="module")
def plain(victim, x, goals):
    return ecgadv.attack(victim, x, target=goals, **FAST)


# --- preprocess -----------------------------------------------------------------------------------


def test_preprocess_standardises_in_any_unit():
    raw = np.random.default_rng(0).normal(size=8000) * 300 + 4000
    out = ecgadv.preprocess(raw, 300)
    assert out.shape == (9000,)
    assert out.dtype == np.float32
    assert not out[8000:].any()
    np.testing.assert_allclose(out[:8000], (raw - raw.mean()) / raw.std(), atol=1e-5)
    np.testing.assert_allclose(ecgadv.preprocess(raw / 1000, 300), out, atol=1e-5)
    long = np.random.default_rng(0).normal(size=12000)
    np.testing.assert_allclose(ecgadv.preprocess(long, 300), ecgadv.preprocess(long[:9000], 300))
    assert ecgadv.preprocess(long, 300, n=500).shape == (500,)


def test_preprocess_gives_what_the_victim_reads(victim):
    t = np.arange(4000) / 400
    raw = 0.3 * np.sin(2 * np.pi * 2 * t) + 40
    raw[100:140] = np.nan
    out = ecgadv.preprocess(raw, 400, victim)
    assert out.shape == (N,)
    assert np.abs(out).max() < 2, "neither the offset nor the gap is a step"
    assert out[76:104] == pytest.approx(0, abs=1e-3), "missing samples are the mean"
    np.testing.assert_array_equal(ecgadv.preprocess(raw, 400, n=N), out)
    with pytest.raises(EcgadvError, match=r"has 2 lead\(s\), victim .* reads 1"):
        ecgadv.preprocess(np.stack([raw, raw], 1), 400, victim)


# --- shapes and order -----------------------------------------------------------------------------


def test_a_result_has_an_entry_for_every_case(plain):
    kinds = {
        "delta": (np.float32, (4, N)),
        "success": (np.bool_, (4,)),
        "distance": (np.float64, (4,)),
        "n_gradients": (np.integer, (4,)),
        "n_forwards": (np.integer, (4,)),
        "predicted": (np.integer, (4,)),
        "p_target": (np.float64, (4,)),
        "margin": (np.float64, (4,)),
    }
    for name, (kind, shape) in kinds.items():
        value = getattr(plain, name)
        assert isinstance(value, np.ndarray), name
        assert np.issubdtype(value.dtype, kind), name
        assert value.shape == shape, name
    assert plain.success.any()
    assert (plain.n_gradients == 12).all()


def test_success_is_what_the_deployed_pipeline_says(victim, x, goals, plain):
    logits = victim.pipeline(x + plain.delta)
    np.testing.assert_array_equal(logits.argmax(1), plain.predicted)
    rest = logits.copy()
    rest[np.arange(4), goals] = -np.inf
    lead = logits[np.arange(4), goals] - rest.max(1)
    np.testing.assert_allclose(lead, plain.margin, atol=1e-3)
    need = 1e-3 * np.maximum(1, np.abs(logits).max(1))
    np.testing.assert_array_equal(lead >= need, plain.success)
    np.testing.assert_allclose(plain.distance, (plain.delta.astype(float) ** 2).sum(1), rtol=1e-6)


def test_a_trailing_axis_of_one_lead_is_taken(victim, x, goals, plain):
    found = ecgadv.attack(victim, x[..., None], target=goals, **FAST)
    np.testing.assert_array_equal(found.delta, plain.delta)


def test_no_record_no_result(victim):
    found = ecgadv.attack(victim, np.zeros((0, N), np.float32), target=1)
    assert found.delta.shape == (0, N)
    assert found.success.shape == found.distance.shape == found.n_gradients.shape == (0,)


def test_inputs_are_left_alone(victim, x, goals):
    before = x.copy()
    mask = np.ones(N, bool)
    ecgadv.attack(victim, x, target=goals, mask=mask, steps=2)
    np.testing.assert_array_equal(x, before)


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [1, "N", ["N", "N", 1, np.int64(1)], np.array([1, 1, 1, 1]), np.array(["N"] * 4)]
)
def test_targets_as_letters_indices_and_lists(victim, x, target):
    found = ecgadv.attack(victim, x, target=target, steps=6)
    expected = ecgadv.attack(victim, x, target=[1, 1, 1, 1], steps=6)
    np.testing.assert_array_equal(found.delta, expected.delta)


@pytest.mark.parametrize("target", ["~", "noise", 3])
def test_the_noise_class_has_two_spellings(victim, x, target):
    found = ecgadv.attack(victim, x[:1], target=target, steps=4)
    expected = ecgadv.attack(victim, x[:1], target=[3], steps=4)
    np.testing.assert_array_equal(found.delta, expected.delta)


def test_untargeted_leaves_the_class(victim, x):
    found = ecgadv.attack(victim, x, steps=30)
    assert found.success.all()
    assert (found.predicted != victim.logits(x).argmax(1)).all()
    assert (found.p_target > 0.4).all()


def test_each_case_has_its_own_target(victim, x):
    found = ecgadv.attack(victim, x, target=["untargeted", 1, "O", "any"], steps=30)
    one = ecgadv.attack(victim, x[1:2], target=1, steps=30)
    np.testing.assert_allclose(found.distance[1], one.distance[0], rtol=1e-2)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "class indices go from 0 to 3"),
        (-1, "class indices go from 0 to 3"),
        (1.5, "class indices go from 0 to 3"),
        (None, "class indices go from 0 to 3"),
        ("AF", "unknown class, choose from A, N, O, ~"),
        ([1, 2], "2 given for 4 cases"),
    ],
)
def test_an_impossible_target_is_refused(victim, x, target, message):
    with pytest.raises(ConfigError, match=message):
        ecgadv.attack(victim, x, target=target)


# --- lengths, masks and padding -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["minnorm", "cw"])
def test_short_records_keep_their_padding(victim, x, method):
    short = x.copy()
    lengths = [600, 450, 1 + 300, 599]
    for row, length in enumerate(lengths):
        own = short[row, :length]
        short[row, :length] = (own - own.mean()) / own.std()
        short[row, length:] = 0
    found = ecgadv.attack(victim, short, method=method, lengths=lengths, steps=6)
    for row, length in enumerate(lengths):
        assert not found.delta[row, length:].any()
        assert found.delta[row, :length].any()
    padded = ecgadv.attack(
        victim, short, method=method, lengths=lengths, steps=6, perturb_padding=True
    )
    assert padded.delta[1, 450:].any()
    assert padded.delta[2, 301:].any()


def test_a_mask_is_kept_exactly(victim, x, goals):
    mask = np.zeros(N)
    mask[::2] = 1
    mask[100:200] = 1
    found = ecgadv.attack(victim, x, target=goals, metric="diff", mask=mask, steps=6)
    assert not found.delta[:, mask == 0].any()
    assert found.delta[:, mask == 1].any()
    each = np.stack([np.arange(N) < 100 * (row + 1) for row in range(4)])
    found = ecgadv.attack(victim, x, target=goals, metric="diff", mask=each, steps=6)
    assert not found.delta[~each].any()
    assert all(found.delta[row, each[row]].any() for row in range(4))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask": np.zeros(N)}, ConfigError, "leaves no sample of some case free"),
        ({"mask": np.ones(N - 1)}, ConfigError, r"mask: has shape \(599,\), expected \(600,\)"),
        ({"lengths": [600, 600]}, DataError, "expected 4 numbers from 1 to 600"),
        ({"lengths": [600, 0, 600, 600]}, DataError, "expected 4 numbers from 1 to 600"),
        ({"lengths": [600, 700, 600, 600]}, DataError, "expected 4 numbers from 1 to 600"),
        ({"metric": "l3"}, ConfigError, "metric=l3: unknown"),
        ({"method": "fgsm"}, ConfigError, "method=fgsm: unknown"),
        ({"nonsense": 3}, ConfigError, "nonsense"),
        ({"steps": 0}, ConfigError, "attack.steps=0"),
        ({"batch_size": 0}, ConfigError, "batch_size=0: must be a whole number"),
        ({"batch_size": "many"}, ConfigError, "batch_size=many: must be a whole number"),
        ({"batch_size": 2.5}, ConfigError, "batch_size=2.5: must be a whole number"),
    ],
)
def test_an_impossible_option_is_refused(victim, x, options, error, message):
    with pytest.raises(error, match=message) as caught:
        ecgadv.attack(victim, x, target=1, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.where(np.arange(N) == 3, np.nan, x), "x holds NaN or infinities"),
        (lambda x: np.where(np.arange(N) == 3, np.inf, x), "x holds NaN or infinities"),
        (lambda x: x * (np.arange(4) != 2)[:, None], "row 2 is a flat line"),
        (lambda x: x[0], r"x has shape \(600,\), expected \(B, 600\) or \(B, 600, 1\)"),
        (lambda x: x[:, :500], r"expected \(B, 600\)"),
        (lambda x: np.stack([x, x], axis=-1), r"expected \(B, 600\)"),
    ],
    ids=["nan", "infinity", "flat", "one", "short", "leads"],
)
def test_impossible_records_are_refused(victim, x, spoil, message):
    with pytest.raises(DataError, match=message):
        ecgadv.attack(victim, spoil(x), target=1)


# --- victims, metrics and filters -----------------------------------------------------------------


def test_models_and_callables_are_victims(victim, x, goals, plain):
    model = victim.model
    for given in (model, lambda z: model(z, training=False)):
        found = ecgadv.attack(given, x, target=goals, **FAST)
        np.testing.assert_array_equal(found.success, plain.success)
        np.testing.assert_allclose(found.distance, plain.distance, rtol=1e-3)


def test_a_victim_that_cannot_be_used_is_refused(x):
    inputs = keras.Input((N, 1))
    five = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))
    with pytest.raises(VictimError, match="5 outputs"):
        ecgadv.attack(five, x, target=1)
    with pytest.raises(VictimError, match="neither a shipped victim"):
        ecgadv.attack("nonsense", x, target=1)


@pytest.mark.parametrize("batch_size", ["auto", 1, 3, 100])
def test_any_batch_size_gives_the_same(victim, x, goals, plain, batch_size):
    found = ecgadv.attack(victim, x, target=goals, batch_size=batch_size, **FAST)
    np.testing.assert_array_equal(found.success, plain.success)
    np.testing.assert_allclose(found.distance, plain.distance, rtol=1e-3)


def test_a_metric_of_ones_own(victim, x, goals):
    from ecgadv.threat.metrics import Quadratic

    form = Quadratic("mine", smooth=0.5, energy=2.0)
    found = ecgadv.attack(victim, x, target=goals, metric=form, **FAST)
    d = found.delta.astype(np.float64)
    expected = 0.5 * ecgadv.metrics.d_smooth(d) + 2.0 * ecgadv.metrics.d_l2(d)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-9)
    assert found.success.any()


def test_the_parts_of_the_interface():
    delta = np.ones((2, 50))
    assert ecgadv.metrics.get("l2").value(delta).tolist() == [50.0, 50.0]
    assert ecgadv.filters.rectangular(np.ones((3, 900)), fs=300).shape == (3, 900)
    assert ecgadv.filters.butterworth(np.ones((3, 900)), fs=300).shape == (3, 900)


@pytest.mark.slow
def test_the_shipped_victim_by_name(tmp_path, monkeypatch):
    from ecgadv.records import synthetic

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    batch = synthetic.load(per_class=1).batch([1])
    victim = ecgadv.load_victim("compact")
    assert victim.logits(batch.x).shape == (1, 4)
    assert victim.pipeline(batch.x).shape == (1, 4)
    target = int(np.argsort(victim.logits(batch.x)[0])[-2])
    found = ecgadv.attack("compact", batch.x, target=target, metric="diff", steps=15)
    assert found.success.all()
    assert victim.pipeline(batch.x + found.delta).argmax(1)[0] == target
