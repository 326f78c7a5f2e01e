"""Twins for attacking: normalisations folded away, answers and gradients the victim's own."""

import gc
import json
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
from helpers import REPO, beats, environment
from keras import layers as L  # noqa: N812, the table is easier to read so

import ecgadv
from ecgadv import backend
from ecgadv.attacks import engine
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.victims import twin as twins
from ecgadv.victims.loading import load_victim
from ecgadv.victims.preflight import reference
from ecgadv.victims.twin import about_twin, twin_of

N = 120


def norm(**options):
    """A batch normalisation that has learnt something."""
    own = {"gamma": "scale", "beta": "center"}
    made = {
        f"{name}_initializer": keras.initializers.RandomUniform(low, high, seed)
        for name, low, high, seed in (
            ("gamma", -1.5, 1.5, 1), ("beta", -1, 1, 2), ("moving_mean", -1, 1, 3),
            ("moving_variance", 0.2, 2, 4),
        )
        if options.get(own.get(name, ""), True)
    }  # fmt: skip
    return L.BatchNormalization(**made | options)


def conv(filters=6, kernel=9, **options):
    return L.Conv1D(filters, kernel, **options)


def chain(*parts):
    def body(x):
        for part in parts:
            x = part(x)
        return x

    return body


def residual(x):
    y = L.ReLU()(norm()(conv(padding="same")(x)))
    y = norm()(conv(padding="same", use_bias=False)(y))
    return L.ReLU()(L.Add()([y, norm()(conv(6, 1)(x))]))


def two_takers(x):
    y = conv()(x)
    return L.Add()([norm()(y), y])


def shared_convolution(x):
    one = conv()
    return L.Add()([L.ReLU()(norm()(one(x))), norm()(one(-x))])


def shared_normalisation(x):
    one = norm()
    return L.Add()([one(conv()(x)), one(conv()(x))])


def shared_model(x):
    inner = keras.Sequential([keras.Input((N, 1)), conv(), norm(), L.ReLU()])
    return L.Add()([inner(x), inner(-x)])


def layer_outside_too(x):
    one = conv()
    inner = keras.Sequential([keras.Input((N, 1)), one, norm()])
    return L.Add()([inner(x), one(x)])


def output_of_inner(x):
    inputs = keras.Input((N, 1))
    y = conv()(inputs)
    return L.Add()(keras.Model(inputs, [y, norm()(y)])(x))


def in_two_dimensions(x):
    y = L.Reshape((12, 10, 1))(x)
    y = L.ReLU()(norm()(L.Conv2D(4, 3, groups=1)(y)))
    y = L.Conv2D(4, 3, groups=2)(norm()(y))
    y = norm()(L.DepthwiseConv2D(3, depth_multiplier=2)(y))
    return L.Reshape((-1, 8))(norm()(L.SeparableConv2D(8, 3, padding="same")(y)))


class Own(L.Layer):
    """A layer that cannot be made again from its configuration."""

    def __init__(self, gains):
        super().__init__()
        self.gain = gains[0]

    def call(self, x):
        return x * self.gain


class OwnNorm(L.BatchNormalization):
    """A normalisation with something of the user's."""

    def call(self, x, training=None, mask=None):
        return 2.0 * super().call(x, training=training, mask=mask)


@keras.saving.register_keras_serializable("tests")
class OwnConv(L.Conv1D):
    """A convolution with something of the user's."""

    def call(self, x):
        return keras.ops.abs(super().call(x))


FORMS = {
    "conv, norm, relu": (chain(conv(), norm(), L.ReLU()), 1, 0),
    "conv without bias": (chain(conv(use_bias=False, padding="same", strides=2), norm()), 1, 0),
    "causal, dilated": (chain(conv(padding="causal", dilation_rate=2), norm()), 1, 0),
    "groups": (chain(conv(4), L.ReLU(), norm(), conv(6, groups=2), norm()), 2, 0),
    "transposed": (chain(L.Conv1DTranspose(5, 4, strides=2), norm(), L.ReLU()), 1, 0),
    "dropout between": (chain(conv(), L.Dropout(0.5), norm(), L.SpatialDropout1D(0.5)), 1, 0),
    "linear activation between": (chain(conv(), L.Activation("linear"), norm()), 1, 0),
    "norm, conv, valid": (chain(conv(), L.ReLU(), norm(), conv(5, padding="valid")), 1, 0),
    "norm, conv, same": (chain(conv(), L.ReLU(), norm(), conv(5, padding="same")), 1, 1),
    "norm, conv, same, kernel 1": (chain(conv(), L.ReLU(), norm(), conv(5, 1, padding="same",
                                         strides=2)), 1, 0),
    "norm without shift, conv, same": (
        chain(conv(), L.ReLU(), norm(center=False, moving_mean_initializer="zeros"),
              conv(5, padding="same")), 1, 0),
    "norm, transposed": (chain(conv(), L.ReLU(), norm(), L.Conv1DTranspose(5, 4)), 1, 1),
    "dense, norm": (chain(conv(), L.GlobalMaxPooling1D(), L.Dense(8), norm(), L.ReLU()), 1, 0),
    "norm, dense": (chain(conv(), L.GlobalMaxPooling1D(), norm(), L.Dense(8), L.ReLU()), 1, 0),
    "separable": (chain(L.SeparableConv1D(6, 5, depth_multiplier=2), norm(), L.ReLU()), 1, 0),
    "norm, separable": (chain(conv(), L.ReLU(), norm(), L.SeparableConv1D(6, 5)), 1, 0),
    "depthwise": (chain(conv(4), L.DepthwiseConv1D(5, depth_multiplier=2), norm()), 1, 0),
    "norm, depthwise": (chain(conv(4), L.ReLU(), norm(),
                              L.DepthwiseConv1D(5, depth_multiplier=2)), 1, 0),
    "norm, norm": (chain(conv(), norm(), norm(), L.ReLU()), 2, 0),
    "norm, norm, conv": (chain(conv(), L.ReLU(), norm(), norm(), conv()), 2, 0),
    "no scale": (chain(conv(), norm(scale=False)), 1, 0),
    "no centre": (chain(conv(), norm(center=False)), 1, 0),
    "neither": (chain(conv(), norm(scale=False, center=False)), 1, 0),
    "not trainable": (chain(conv(), norm(trainable=False)), 1, 0),
    "over time": (chain(conv(), norm(axis=1)), 1, 1),
    "renorm": (chain(conv(), norm(renorm=True)), 1, 1),
    "activation before": (chain(conv(activation="tanh"), norm(), L.MaxPooling1D()), 1, 1),
    "first of all": (chain(norm(), conv()), 1, 0),
    "residual": (residual, 3, 0),
    "two takers": (two_takers, 1, 1),
    "shared convolution": (shared_convolution, 2, 2),
    "shared normalisation": (shared_normalisation, 1, 1),
    "shared model": (shared_model, 1, 0),
    "layer inside and outside": (layer_outside_too, 1, 1),
    "taken out of an inner model": (output_of_inner, 1, 1),
    "nested": (chain(keras.Sequential([conv(), norm(), L.ReLU()]),
                     keras.Sequential([norm(), conv(5)])), 2, 0),
    "across the edge of a model": (chain(keras.Sequential([conv()]), norm()), 1, 1),
    "two dimensions": (in_two_dimensions, 4, 0),
    "a convolution of one's own": (chain(OwnConv(4, 5), norm()), 1, 1),
    "a normalisation of one's own": (chain(conv(), OwnNorm()), 1, 1),
    "nothing to fold": (chain(conv(), L.LayerNormalization()), 0, 0),
}  # fmt: skip
"""Name -> body of a network, its normalisations, and how many of them a twin keeps."""


def network(body, shape=(N, 1)):
    inputs = keras.Input(shape)
    y = body(inputs)
    if len(y.shape) == 3:
        y = L.GlobalMaxPooling1D()(y)
    return filled(keras.Model(inputs, L.Dense(4)(y)))


def filled(model):
    """With kernels and biases that are the same on every backend and in every run."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.path.rpartition("/")[2]
        if kind.endswith("kernel"):
            gain = 1.5 / np.sqrt(np.prod(weight.shape[:-1]))
            weight.assign(gain * rng.standard_normal(weight.shape))
        elif kind == "bias":
            weight.assign(0.1 * rng.standard_normal(weight.shape))
    return model


def norms(model):
    return sum(isinstance(layer, L.BatchNormalization) for layer in model._flatten_layers())


def assert_alike(victim, twin):
    own, other = reference(victim), reference(twin)
    scale = np.maximum(1, np.abs(own.logits).max())
    np.testing.assert_allclose(other.logits, own.logits, atol=1e-5 * scale)
    largest = np.abs(own.gradient).max()
    np.testing.assert_allclose(other.gradient, own.gradient, atol=1e-4 * largest)
    x = beats(3, victim.n, seed=5) if victim.leads == 1 else own.x
    np.testing.assert_allclose(twin.logits(x), victim.logits(x), atol=2e-5 * scale)


@pytest.mark.parametrize("name", FORMS)
def test_a_twin_answers_as_its_victim(name):
    body, there, left = FORMS[name]
    victim = load_victim(network(body))
    before = [w.copy() for w in victim.model.get_weights()]
    twin = twin_of(victim)
    assert (norms(victim.model), norms(twin.model)) == (there, left)
    assert (twin is victim) == (there == left)
    assert_alike(victim, twin)
    assert twin_of(victim) is twin
    assert not [note for note in victim.notes if "twin" in note]
    for one, other in zip(before, victim.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    told = about_twin(victim)
    assert told.startswith(f"a twin with {there - left} of {there}" if there > left else "the netw")


def test_leads_first():
    def body(x):
        y = conv(5, data_format="channels_first")(x)
        return L.GlobalMaxPooling1D(data_format="channels_first")(L.ReLU()(norm(axis=1)(y)))

    victim = load_victim(network(body, (2, N)), channels="first")
    twin = twin_of(victim)
    assert norms(twin.model) == 0
    assert_alike(victim, twin)


def test_made_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network(chain(conv(), norm(), L.ReLU()))
    finally:
        keras.config.set_dtype_policy("float32")
    victim = load_victim(model)
    assert norms(twin_of(victim).model) == 0
    assert_alike(victim, twin_of(victim))


def test_a_softmax_head_and_a_sequential_model():
    head = L.Dense(4, activation="softmax")
    parts = [conv(), norm(), L.ReLU(), L.GlobalMaxPooling1D(), head]
    model = filled(keras.Sequential([keras.Input((N, 1)), *parts]))
    victim = load_victim(model)
    assert norms(twin_of(victim).model) == 0
    assert_alike(victim, twin_of(victim))
    assert norms(model) == 1


def test_what_cannot_be_made_again_is_attacked_as_it_is():
    model = network(chain(conv(), norm(), Own((1.5, None))))
    victim = load_victim(model)
    x = beats(2, N, seed=5)
    assert twin_of(victim) is victim
    assert ecgadv.attack(victim, x, steps=3).n_gradients.tolist() == [3, 3]


def test_a_twin_that_would_answer_otherwise_is_left_out_with_a_note(monkeypatch):
    from ecgadv.victims import folding

    right = folding._affine
    victim = load_victim(network(chain(conv(), norm(), L.ReLU())))
    monkeypatch.setattr(folding, "_affine", lambda layer: (right(layer)[0] * 1.01, right(layer)[1]))
    assert twin_of(victim) is victim
    (note,) = (note for note in victim.notes if "twin" in note)
    assert "no twin with batch normalisations folded: its logits would be" in note
    assert about_twin(victim).startswith("the network itself (its logits would be")
    assert twin_of(victim) is victim
    assert sum("twin" in note for note in victim.notes) == 1


def test_a_failure_never_stops_an_attack(monkeypatch):
    from ecgadv.victims import folding

    def fail(layer):
        raise RuntimeError("no such layer")

    victim = load_victim(network(chain(conv(), norm(), L.ReLU())))
    monkeypatch.setattr(folding, "_affine", fail)
    assert twin_of(victim) is victim
    assert any("it cannot be made" in note and "no such layer" in note for note in victim.notes)


def test_functions_have_no_twin():
    model = network(chain(conv(), norm(), L.ReLU()))
    victim = load_victim(lambda x: model(x, training=False), n=N)
    assert twin_of(victim) is victim
    assert about_twin(victim) == "the network itself"


def test_weights_that_changed_get_a_new_twin():
    victim = load_victim(network(chain(conv(), norm(), L.ReLU())))
    first = twin_of(victim)
    victim.model.set_weights([1.1 * w for w in victim.model.get_weights()])
    assert twin_of(victim) is not first
    assert_alike(victim, twin_of(victim))


def test_a_twin_goes_with_its_victim():
    victim = load_victim(network(chain(conv(), norm(), L.ReLU())))
    gone = weakref.ref(twin_of(victim))
    del victim
    gc.collect()
    assert gone() is None


@pytest.fixture(scope="module")
def normalised():
    """A victim with margins within reach."""
    body = chain(conv(8, strides=2, padding="same", use_bias=False), norm(), L.ReLU(),
                 conv(8, padding="same"), norm(), L.ReLU())  # fmt: skip
    model = network(body, (600, 1))
    logits = backend.to_numpy(model(beats(16, 600, seed=9)[..., None], training=False))
    *rest, kernel, bias = model.get_weights()
    model.set_weights(
        [*rest, 3 * kernel / logits.std(0), bias - 3 * logits.mean(0) / logits.std(0)]
    )
    return load_victim(model)


@pytest.mark.parametrize("name", ["residual", "two takers", "over time", "norm, conv, same",
                                  "a normalisation of one's own", "shared model"])  # fmt: skip
def test_coarse_twins_answer_nearly_alike(name):
    victim = load_victim(network(FORMS[name][0]), check=False)
    twin = twin_of(victim, "bfloat16")
    own, other = reference(victim), reference(twin)
    assert np.abs(other.logits - own.logits).max() < 0.05 * np.abs(own.logits).max()
    assert twin.model.layers[-1].compute_dtype == "float32"
    assert norms(twin.model) == FORMS[name][2]
    assert norms(victim.model) == FORMS[name][1]


@pytest.mark.parametrize("method", ["minnorm", "pgd", "cw", "eot"])
def test_attacks_through_the_twin_end_where_they_did(normalised, method, monkeypatch):
    x = beats(3, 600, seed=4)
    steps = {"minnorm": 30, "pgd": 8, "cw": 40, "eot": 10}[method]
    options = {"shifts": 2, "evaluation_shifts": 4} if method == "eot" else {}
    found = ecgadv.attack(normalised, x, method=method, steps=steps, **options)
    monkeypatch.setattr("ecgadv.study.study.twin_of", lambda victim, precision="float32": victim)
    plain = ecgadv.attack(normalised, x, method=method, steps=steps, **options)
    assert found.success.tolist() == plain.success.tolist()
    assert found.n_gradients.tolist() == plain.n_gradients.tolist()
    assert found.n_forwards.tolist() == plain.n_forwards.tolist()
    np.testing.assert_allclose(found.distance, plain.distance, rtol=2e-3)


def test_verdicts_are_the_plain_networks(normalised, monkeypatch):
    """Whatever the twin says, the margin reported is that of the victim itself."""
    x = beats(2, 600, seed=4)
    found = ecgadv.attack(normalised, x, steps=10)
    z = np.sort(normalised.pipeline(x + found.delta), axis=1)
    np.testing.assert_allclose(np.abs(found.margin), z[:, -1] - z[:, -2], atol=1e-4)
    seen = []
    monkeypatch.setattr(twins, "_folded", lambda victim: seen.append(victim) or (None, ""))
    other = load_victim(normalised.model)
    other.pipeline(x)
    assert not seen  # Nothing is built for answers alone.


def test_coarse_gradients_are_the_twins_too(normalised):
    twin = twin_of(normalised, "bfloat16")
    assert norms(twin.model) == 0
    assert {layer.compute_dtype for layer in twin.model.layers[1:-1]} == {"bfloat16"}
    assert twin.model.layers[-1].compute_dtype == "float32"
    own, other = reference(normalised), reference(twin)
    cosine = (own.gradient * other.gradient).sum(1) / (
        np.linalg.norm(own.gradient, axis=1) * np.linalg.norm(other.gradient, axis=1)
    )
    # A maximum over time may be at another sample.
    assert np.median(cosine) > 0.97
    assert (cosine > 0.8).all()
    x = beats(4, 600, seed=4)[1:]
    found = ecgadv.attack(normalised, x, steps=30, precision="bfloat16")
    plain = ecgadv.attack(normalised, x, steps=30)
    assert found.success.all()
    np.testing.assert_allclose(found.distance, plain.distance, rtol=0.25)


def test_the_choice_of_precision_stands_on_a_margin(normalised, monkeypatch):
    clock = {"now": 0.0, "cost": {}}

    class Timed:
        def __init__(self, precision):
            self.precision = precision

        def __call__(self, x):
            clock["now"] += clock["cost"][self.precision] * next(loads)
            return None, x if self.precision == "float32" else clock["sign"] * x

    monkeypatch.setattr(engine, "_gradient", Timed)
    monkeypatch.setattr(engine, "twin_of", lambda victim, precision="float32": precision)
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock["now"])
    cases = ((0.5, 1, "bfloat16"), (0.84, 1, "bfloat16"), (0.9, 1, "float32"), (0.5, -1, "float32"))
    for share, sign, chosen in cases:
        # The load of the machine triples for a moment.
        loads = iter([1] * 6 + [3, 3] + [1] * 4)
        clock |= {"cost": {"float32": 1.0, "bfloat16": share}, "sign": sign}
        precision, why = engine.choose_precision("auto", MinNorm(), normalised, 10_000, 4)
        assert precision == chosen
        assert "250.00 ms in float32" in why
        assert f"bfloat16 {share:.2f} of that" in why
        assert ("points elsewhere" in why) == (sign < 0)
    assert engine.choose_precision("auto", MinNorm(), normalised, 2, 2)[0] == "float32"


def test_networks_of_pytorch():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    program = REPO / "tests" / "torch_twins.py"
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, cwd=REPO,
        env=environment(KERAS_BACKEND="torch"), timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(rows) >= 12
    for name, row in rows.items():
        assert row["left"] == row["wanted"], (name, row)
        assert row["logits"] < 1e-5, (name, row)
        assert row["gradient"] < 1e-4, (name, row)
        assert row["untouched"], name
        assert bool(row["note"]) == row["noted"], (name, row)
