"""Networks of many forms, a row each: taken as they answer themselves, or refused in one line."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import REPO, beats, environment, in_process
from keras import layers as L  # noqa: N812, the table is easier to read so
from keras import ops

import ecgadv
from ecgadv.errors import VictimError
from ecgadv.evaluate.predictions import Predictions, doubts
from ecgadv.records.base import RecordSet
from ecgadv.victims import preflight
from ecgadv.victims.loading import load_victim

N = 120
X = beats(3, N, seed=3)


def conv(x, filters=6, **options):
    return L.Conv1D(filters, 9, strides=2, activation="relu", **options)(x)


def pooled(x, **options):
    return L.Concatenate(**options)(
        [L.GlobalAveragePooling1D(**options)(x), L.GlobalMaxPooling1D(**options)(x)]
    )


def network(end, body=None, shape=(N, 1), **options):
    """A small network; ``end`` makes its output of the features."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    features = pooled(conv(inputs, **options), **options) if body is None else body(inputs)
    return keras.Model(inputs, end(features))


def dense(activation=None, units=4, **options):
    return lambda h: L.Dense(
        units, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 1, 7),
        **options,
    )(h)  # fmt: skip


class Own(keras.Model):
    """A subclassed model: it does not tell its shapes."""

    def __init__(self, head=None, between=None):
        super().__init__()
        self.body, self.head = L.Conv1D(6, 9, activation="relu"), L.Dense(4, activation=head)
        self.between = between

    def call(self, x):
        y = self.body(x)
        if self.between is not None:
            y = self.between(y, training=True)
        return self.head(ops.max(y, axis=1))


def subclassed(**options):
    keras.utils.set_random_seed(0)
    model = Own(**options)
    model(np.zeros((1, N, 1), np.float32))
    return model


class Scale(L.Layer):
    """A layer that cannot be made again from its configuration."""

    def __init__(self, gains):
        super().__init__()
        self.gain = self.add_weight(shape=(1,), initializer=keras.initializers.Constant(gains[0]))
        self.fixed = gains[1]

    def call(self, x):
        return x * self.gain + self.fixed


def sequential(first):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([*first, L.Conv1D(6, 9), L.GlobalMaxPooling1D(), L.Dense(4)])
    model(np.zeros((1, N, 1), np.float32))
    return model


def normalised():
    layer = L.Normalization(axis=None)
    layer.adapt(3.0 + 2.0 * X)
    return network(dense(), lambda x: pooled(conv(layer(x))))


def shared():
    inner = keras.Sequential([keras.Input((N, 1)), L.Conv1D(4, 9), L.GlobalMaxPooling1D()])
    return network(dense(), lambda x: L.Concatenate()([inner(x), inner(-x)]))


def compiled():
    def my_loss(truth, said):
        return ops.mean(ops.square(truth - said))

    model = network(dense())
    model.compile("adam", loss=my_loss)
    return model


def in_policy(policy, make):
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy("float32")


def lists():
    model = network(dense())
    return keras.Model([model.inputs[0]], [model.outputs[0]])


def two_inputs():
    a, b = keras.Input((N, 1)), keras.Input((N, 1))
    return keras.Model([a, b], dense()(pooled(conv(L.Add()([a, b])))))


def channels_first():
    return network(dense(), lambda x: pooled(conv(L.Permute((2, 1))(x))), (1, N))


def stateful():
    inputs = keras.Input(batch_shape=(8, N, 1))
    return keras.Model(inputs, dense()(L.LSTM(4, stateful=True)(inputs)))


def fixed_batch():
    inputs = keras.Input(batch_shape=(8, N, 1))
    return keras.Model(inputs, dense()(pooled(conv(inputs))))


def in_time(x):
    return L.Conv1D(4, 9, strides=4)(x)


def root(x):
    return pooled(conv(ops.sqrt(ops.square(x[:, 1:] - x[:, :-1]))))


ALIKE = "as the model itself"
SOFTMAX = "the logits of the model's probabilities"
SIGMOID = "sigmoid probabilities of labels that do not exclude each other"
SOFTMAXED = "outputs are probabilities, an attack needs logits"
COMPANY = "its answer for a record changes with the others in its batch"

KERAS = [
    ("functional", lambda: network(dense()), {}, ALIKE),
    ("sequential", lambda: sequential([keras.Input((N, 1))]), {}, ALIKE),
    ("sequential without an input", lambda: sequential([]), {}, ALIKE),
    ("subclassed", subclassed, {"n": N}, ALIKE),
    ("a layer without configuration",
     lambda: network(dense(), lambda x: Scale((2.0, 0.1))(pooled(conv(x)))), {}, ALIKE),
    ("lambda layer", lambda: network(lambda h: L.Lambda(lambda z: 2 * z)(dense()(h))), {}, ALIKE),
    ("a model twice in a model", shared, {}, ALIKE),
    ("adapted normalisation", normalised, {}, ALIKE),
    ("compiled with a loss of its own", compiled, {}, ALIKE),
    ("lists of one", lists, {}, ALIKE),
    ("bidirectional recurrent",
     lambda: network(dense(), lambda x: L.Bidirectional(L.GRU(4))(conv(x))), {}, ALIKE),
    ("channels first", channels_first, {"channels": "first"}, ALIKE),
    ("a batch of eight", fixed_batch, {}, ALIKE),
    ("open length", lambda: network(dense(), None, (None, 1)), {"n": N}, ALIKE),
    ("float64", lambda: network(dense(), dtype="float64"), {}, ALIKE),
    ("float16", lambda: network(dense(dtype="float16"), dtype="float16"), {}, ALIKE),
    ("mixed precision", lambda: in_policy("mixed_bfloat16", lambda: network(dense())), {}, ALIKE),
    ("layers inside layers in mixed precision",
     lambda: in_policy("mixed_float16", lambda: network(
         dense(), lambda x: L.TimeDistributed(L.Dense(3))(conv(x))[:, 0])), {}, ALIKE),
    ("softmax in the last layer", lambda: network(dense("softmax")), {}, SOFTMAX),
    ("softmax layer", lambda: network(lambda h: L.Softmax()(dense()(h))), {}, SOFTMAX),
    ("softmax operation", lambda: network(lambda h: ops.softmax(dense()(h))), {}, SOFTMAX),
    ("softmax in a model in a model", lambda: network(
        keras.Sequential([keras.Input((12,)), L.Dense(4, activation="softmax")])), {}, SOFTMAX),
    ("log of a softmax", lambda: network(lambda h: ops.log(dense("softmax")(h))), {}, ALIKE),
    ("log of a mean over time", lambda: network(
        lambda p: ops.log(ops.mean(p, axis=1)), lambda x: L.Softmax()(in_time(x))), {}, ALIKE),
    ("logit of a sigmoid", lambda: network(
        lambda h: (lambda p: ops.log(p) - ops.log(1 - p))(L.Dense(4, activation="sigmoid")(h))),
     {}, ALIKE),
    ("root of a square", lambda: network(dense(), root), {}, ALIKE),
    ("function", lambda: (lambda model: lambda x: model(x))(network(dense())), {"n": N}, ALIKE),
    ("casts inside", lambda: network(
        lambda h: ops.cast(ops.cast(dense()(h), "float16"), "float32")), {},
     "it computes in float16 inside, verdicts are made in float32"),
    ("subclassed in mixed precision", lambda: in_policy("mixed_bfloat16", subclassed), {"n": N},
     "it computes in bfloat16 inside"),
    ("the same for every input", lambda: network(
        L.Dense(4, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.3))),
     {}, "its outputs are the same for every input"),
    ("mean over time of a softmax", lambda: network(
        lambda p: ops.mean(p, axis=1), lambda x: L.Softmax()(in_time(x))), {}, SOFTMAXED),
    ("sigmoid in the last layer", lambda: network(dense("sigmoid")), {}, SIGMOID),
    ("sigmoid, then reshaped",
     lambda: network(lambda h: L.Reshape((4,))(dense("sigmoid")(h))), {}, SIGMOID),
    ("a sigmoid a label", lambda: network(
        lambda h: L.Concatenate()([dense("sigmoid", 1)(h) for _ in range(4)])), {}, SIGMOID),
    ("sigmoid operation", lambda: network(lambda h: ops.sigmoid(dense()(h))), {}, SIGMOID),
    ("hard sigmoid", lambda: network(dense("hard_sigmoid")), {}, SIGMOID),
    ("sigmoid in a model in a model", lambda: network(
        keras.Sequential([keras.Input((12,)), L.Dense(4, activation="sigmoid")])), {}, SIGMOID),
    ("subclassed with a sigmoid", lambda: subclassed(head="sigmoid"), {"n": N}, SIGMOID),
    ("one sigmoid for two classes", lambda: network(dense("sigmoid", 1)), {"classes": ["N", "A"]},
     "1 outputs, but the classes are N, A .2.; .*one output for two classes: give two logits"),
    ("batch normalisation in training mode", lambda: subclassed(
        between=L.BatchNormalization()), {"n": N}, COMPANY),
    ("less the mean of the batch",
     lambda: network(lambda h: dense()(h - ops.mean(h, axis=0, keepdims=True))), {}, COMPANY),
    ("softmax over the batch", lambda: network(
        lambda h: ops.softmax(dense()(h), axis=0)), {}, COMPANY),
    ("the sum of the batch for every record", lambda: network(
        lambda h: 0 * dense()(h) + ops.sum(dense()(h), axis=0, keepdims=True)), {}, COMPANY),
    ("dropout in training mode", lambda: subclassed(between=L.Dropout(0.5)), {"n": N}, COMPANY),
    ("recurrent with a state", stateful, {}, "it takes batches of 8 only"),
    ("an answer in time", lambda: network(lambda h: h, in_time), {},
     r"output \(B, 28, 4\), expected \(B, classes\)"),
    ("two outputs", lambda: network(lambda h: [dense()(h), dense("sigmoid")(h)]), {},
     r"its output is a list of 2, expected \(B, classes\)"),
    ("named outputs", lambda: network(lambda h: {"logits": dense()(h)}), {},
     r"its output is a dict with logits, expected \(B, classes\)"),
    ("two inputs", two_inputs, {}, r"input shape .* expected \(B, n, leads\)"),
    ("a label and no logits", lambda: network(lambda h: ops.argmax(dense()(h), axis=-1)), {},
     r"output \(B,\), expected \(B, classes\)"),
    ("a function that gives an array", lambda: lambda x: np.zeros((32, 4), np.float32),
     {"n": N}, "its output is a NumPy array, which has no gradient"),
    ("a function that forgets to return", lambda: lambda x: None, {"n": N}, "its output is None"),
]  # fmt: skip


def answers(model, x, channels="last"):
    """What a model in float32 says, called as its user would."""
    rows = x[..., None] if channels == "last" else x[:, None, :]
    called = model(rows, training=False) if isinstance(model, keras.Model) else model(rows)
    called = called[0] if isinstance(called, list) else called
    return np.asarray(ops.convert_to_numpy(called), np.float64)


def in_float32(model):
    """The same network built in float32 where it was made in other arithmetic."""
    kinds = {layer.compute_dtype for layer in model._flatten_layers()}
    if kinds == {"float32"}:
        return model
    text = json.dumps(json.loads(model.to_json()))
    for kind in ("mixed_bfloat16", "mixed_float16", "float16", "float64"):
        text = text.replace(f'"{kind}"', '"float32"')
    twin = keras.models.model_from_json(text)
    twin.set_weights([np.asarray(w, np.float32) for w in model.get_weights()])
    return twin


@pytest.mark.parametrize(("make", "options", "expected"), [row[1:] for row in KERAS],
                         ids=[row[0] for row in KERAS])  # fmt: skip
def test_keras_networks(make, options, expected):
    model = make()
    is_model = isinstance(model, keras.Model)
    if expected not in (ALIKE, SOFTMAX):
        with pytest.raises(VictimError, match=expected) as caught:
            load_victim(model, **options)
        assert "\n" not in str(caught.value)
        return
    before = [w.copy() for w in model.get_weights()] if is_model else []
    told = answers(in_float32(model) if is_model else model, X, options.get("channels", "last"))
    victim = load_victim(model, **options)
    assert type(victim.n) is int
    logits = victim.logits(X)
    if expected == SOFTMAX:
        assert any("softmax head was taken off" in note for note in victim.notes)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), told, atol=1e-5)
    else:
        np.testing.assert_allclose(logits, told, atol=2e-5 * max(1, np.abs(told).max()))
    if not is_model:
        return
    # The model is as it was, and what happens to it later does not reach the victim.
    assert model.trainable
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.set_weights([w + np.ones_like(w) for w in before])
    np.testing.assert_array_equal(victim.logits(X), logits)
    if victim.model is not None:
        assert np.isfinite(victim.activations)


def test_an_open_length_is_said_and_whole():
    """Of the API, the command line's 30 s, or what the records have; the same in any chunks."""
    model = network(dense(), None, (None, 1))
    victim = load_victim(model)
    assert victim.n == 9000
    assert any("it takes any length: 9000 samples (30 s)" in note for note in victim.notes)
    assert load_victim(model, fs=100).n == 3000
    one, every = (ecgadv.attack(model, X, steps=5, batch_size=size) for size in (1, "auto"))
    assert every.delta.shape == (3, N)
    np.testing.assert_allclose(every.distance, one.distance, rtol=1e-3)


def test_a_gradient_that_is_not_finite_on_padding_is_said():
    victim = load_victim(network(dense(), root))
    assert sum("gradient is not finite on zero-padded" in note for note in victim.notes) == 1
    assert any("not finite on flat stretches" in note for note in victim.notes)
    assert not load_victim(network(dense())).notes

    def everywhere(x):
        return ops.sqrt(0.0 * x) + x

    with pytest.raises(VictimError, match="gradient of its outputs by its input is not finite"):
        load_victim(network(dense(), lambda x: pooled(conv(everywhere(x)))))


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_files_made_in_mixed_precision(tmp_path, ending):
    model = in_policy("mixed_bfloat16", lambda: network(dense("softmax")))
    model.save(tmp_path / f"mixed{ending}")
    victim = load_victim(tmp_path / f"mixed{ending}")
    assert any("made in bfloat16: taken in float32" in note for note in victim.notes)
    told = np.log(answers(in_float32(model), X))
    logits = victim.logits(X).astype(np.float64)
    apart = (logits - told) - (logits - told).mean(1, keepdims=True)
    np.testing.assert_allclose(apart, 0, atol=1e-4)


def test_rounding_is_no_company():
    """Large logits of a deep network round by more than small ones; that alone is no reason."""

    def deep(x):
        for _ in range(12):
            x = L.LayerNormalization()(L.Conv1D(12, 5, padding="same")(x))
        return 1e4 * pooled(x)

    victim = load_victim(network(dense(), deep))
    assert np.abs(victim.logits(X)).max() > 1e3


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ([[0.1, 0.9], [0.5, 0.5]], "softmax"),
        ([[0.1, 0.8], [0.5, 0.5]], "sigmoid"),
        ([[0.1, 0.8], [-0.5, 0.5]], "logits"),
        ([[0.1, 0.8], [np.nan, 0.5]], "sigmoid"),
        ([[np.nan, 0.8], [np.nan, 0.5]], "logits"),
    ],
)
def test_heads_are_told_by_their_outputs(outputs, kind):
    assert preflight.head_of(np.array(outputs)) == kind


# --- a victim that reads nothing ------------------------------------------------------------------


def judged(truth, said, classes="ANO~"):
    """What is doubted of predictions given as letters."""
    count = len(truth)
    logits = np.zeros((count, 4), np.float32)
    logits[np.arange(count), [classes.index(c) for c in said]] = 1
    ids = [f"R{i}" for i in range(count)]
    records = RecordSet("made", ids, np.array(list(truth)), np.zeros(count, np.float32),
                        np.arange(count + 1, dtype=np.int64))  # fmt: skip
    victim = load_victim(lambda x: x, n=N, check=False)
    right = np.array([a == b for a, b in zip(truth, said, strict=True)])
    return doubts(victim, records, Predictions(logits, right, np.full(count, "heldout")))


@pytest.mark.parametrize(
    ("truth", "said", "expected"),
    [
        ("ANO~" * 30, "N" * 120, "reads 120 of 120 records as N, 30 are labelled so"),
        ("ANO~" * 30, "AAAANNNNOOOO~~~~" * 7 + "AN" * 4, "by chance it would be"),
        ("ANO~" * 30, "NOA~" * 30, r"victim.classes=\[O,A,N,noise\] would fit 120 of 120"),
        ("ANO~" * 30, "ANON" * 30, ""),
        ("ANO~" * 2, "N" * 8, ""),
        ("N" * 95 + "AAAOO", "N" * 100, "by chance|"),
        ("N" * 100, "N" * 100, ""),
        ("N" * 60 + "A" * 40, "N" * 58 + "A" * 42, ""),
    ],
    ids=["one class", "chance", "order", "fine", "few", "rare", "one label", "two labels"],
)
def test_a_victim_at_chance_is_said(truth, said, expected):
    notes = judged(truth, said)
    if not expected:
        assert notes == ()
    elif expected != "by chance|":
        import re

        assert len(notes) == 1
        assert re.search(expected, notes[0])
        assert "victim.fs" in notes[0]
    else:
        assert len(notes) <= 1


def test_what_is_noted_of_a_victim_is_printed(tmp_path, capsys):
    """A network of open length with a softmax, and recordings labelled in another order."""
    plain = network(dense(), None, (None, 1))
    signals = beats(60, 9000, seed=1)
    # Centred and scaled, so that every class is read in some record.
    logits = answers(plain, signals)
    kernel, _ = plain.layers[-1].get_weights()
    plain.layers[-1].set_weights([3 * kernel / logits.std(0), -3 * logits.mean(0) / logits.std(0)])
    model = keras.Model(plain.inputs[0], L.Softmax()(plain.outputs[0]))
    said = answers(model, signals).argmax(1)
    assert len(set(said)) > 1
    model.save(tmp_path / "open.keras")
    np.savez(tmp_path / "records.npz", signals=signals, fs=np.float64(300),
             labels=np.array(["NO~A"[k] for k in said]))  # fmt: skip
    in_process(
        "victim=keras", f"victim.path={tmp_path / 'open.keras'}", "data=arrays",
        f"data.root={tmp_path / 'records.npz'}", "tracking=none", f"paths.root={tmp_path}",
        f"paths.data={tmp_path / 'cache'}", "attack.steps=2", "selection.per_class=1",
    )  # fmt: skip
    notes = [row for row in capsys.readouterr().err.splitlines() if row.startswith("note: victim ")]
    begins = ("it takes any length: 9000", "its softmax head was taken", "it reads 0 of 60 records")
    assert len(notes) == len(begins)
    for note, begin in zip(notes, begins, strict=True):
        assert note.startswith(f"note: victim open: {begin}")
    assert "victim.classes=[N,O,noise,A] would fit 60 of 60" in notes[-1]


# --- Keras' own defaults --------------------------------------------------------------------------

DEFAULTS = """
import json, sys
import numpy as np, keras
import ecgadv
from ecgadv.records import synthetic
assert keras.config.floatx() == "float16"
assert keras.config.image_data_format() == "channels_first"
batch = synthetic.load(per_class=1).batch([0, 1, 2, 3], 9000)
victim = ecgadv.load_victim("compact")
own = ecgadv.load_victim(sys.argv[1])
found = ecgadv.attack(own, np.load(sys.argv[2]), steps=20)
print(json.dumps({
    "compact": victim.logits(batch.x).tolist(), "own": own.logits(np.load(sys.argv[2])).tolist(),
    "success": found.success.tolist(), "floatx": keras.config.floatx(),
    "layout": keras.config.image_data_format(),
}))
"""


def test_the_defaults_of_keras_do_not_change_a_verdict(tmp_path):
    """``keras.json`` of someone who trains images in half precision, channels first."""
    from ecgadv.records import synthetic

    (tmp_path / "keras.json").write_text(
        json.dumps({"floatx": "float16", "image_data_format": "channels_first"})
    )
    model = network(dense())
    model.save(tmp_path / "own.keras")
    np.save(tmp_path / "x.npy", X, allow_pickle=False)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DEFAULTS, "own.keras", "x.npy"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False,
        env=environment(KERAS_HOME=str(tmp_path), ECGADV_CACHE=str(tmp_path / "cache")),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    said = json.loads(result.stdout.splitlines()[-1])
    batch = synthetic.load(per_class=1).batch([0, 1, 2, 3], 9000)
    np.testing.assert_allclose(said["compact"], load_victim("compact").logits(batch.x), atol=1e-3)
    np.testing.assert_allclose(said["own"], answers(model, X), atol=1e-4)
    assert said["success"] == [True] * 3
    assert (said["floatx"], said["layout"]) == ("float16", "channels_first")


# --- PyTorch: built and tried by torch_forms.py in one process of that backend --------------------

TORCH = [
    ("training mode, dropout and batch normalisation", ALIKE),
    ("float16", ALIKE),
    ("bfloat16", ALIKE),
    ("float64", ALIKE),
    ("an activation kept", ALIKE),
    ("weight normalisation", ALIKE),
    ("a hook that changes the output", ALIKE),
    ("function", ALIKE),
    ("scripted", ALIKE),
    ("traced in float16", ALIKE),
    ("exported, batch free", ALIKE),
    ("recurrent, batch first", ALIKE),
    ("root of a square", ALIKE),
    ("called under the caller's autocast", ALIKE),
    ("autocast inside", "it computes in bfloat16 inside, verdicts are made in float32"),
    ("batch normalisation without running statistics", COMPANY),
    ("traced in training mode", COMPANY),
    ("recurrent without batch_first", COMPANY),
    ("attention over the batch", COMPANY),
    ("exported for one batch size", "it takes batches of 4 only: make its batch size free"),
    ("written for one batch size", "it takes batches of 8 only: make its batch size free"),
    ("squeezed", r"output \(4,\), expected \(B, classes\)"),
    ("nn.Sigmoid", SIGMOID),
    ("scripted with a sigmoid", SIGMOID),
    ("softmax", SOFTMAXED),
    ("an answer in time", r"output \(B, 28, 4\), expected \(B, classes\)"),
    ("tuple", r"its output is a tuple of 2, expected \(B, classes\)"),
    ("dict", r"its output is a dict with logits, expected \(B, classes\)"),
    ("array", "its output is a NumPy array, which has no gradient"),
    ("channels forgotten", r"expected input\[.*; it answers with victim.channels=first"),
    ("scripted, channels forgotten", r"Given groups=1.*; it answers with victim.channels=first"),
    ("length not said", r"fails on an input .*; victim.n \(in Python: n=\) says how many"),
    ("dropout as a function", "outputs change from call to call"),
    ("data parallel", ALIKE),
    ("quantised", COMPANY),
    ("casts its input", "; it was made in float16: taken in float32"),
    ("cut off", "the gradient of its outputs by its input is zero|no gradient"),
    ("holds a lock", "the module cannot be copied .*give a function"),
]


@pytest.fixture(scope="module")
def torch_said():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(REPO / "tests" / "torch_forms.py")],
        capture_output=True, text=True, timeout=300, cwd=REPO, check=False,
        env=environment(KERAS_BACKEND="torch"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    said = json.loads(result.stdout.splitlines()[-1])
    assert set(said) == {name for name, _ in TORCH}
    return said


@pytest.mark.parametrize(("name", "expected"), TORCH, ids=[name for name, _ in TORCH])
def test_torch_networks(torch_said, name, expected):
    import re

    said = torch_said[name]
    if expected != ALIKE:
        assert re.search(expected, said["error"] or "accepted")
        assert "\n" not in said["error"]
        return
    assert said["error"] is None
    assert said["apart"] < 1e-4
    assert said["untouched"]
    assert said["after"] == 0
    if name == "root of a square":
        assert "gradient is not finite on zero-padded" in said["notes"]
    if name in ("float16", "bfloat16", "float64"):
        assert f"it was made in {name}: taken in float32" in said["notes"]
