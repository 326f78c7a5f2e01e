"""Loading victims, refusing those that cannot be attacked, and what the shipped one scores."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import REPO, beats, environment, random_network
from keras import layers, ops

import ecgadv
from ecgadv.errors import VictimError
from ecgadv.victims import loading
from ecgadv.victims.architectures import build
from ecgadv.victims.loading import from_keras, load_victim

N = 300


def small(head: str = "linear", classes: int = 4, n: int = N, last: object = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((n, 1))
    y = layers.Conv1D(4, 7, strides=3, activation="relu")(inputs)
    y = layers.Dense(classes, activation=head)(layers.Flatten()(y))
    return keras.Model(inputs, last(y) if last else y)


# --- the pipeline ---------------------------------------------------------------------------------


def test_the_pipeline_standardises_and_pads():
    victim = random_network()
    raw = [3.0 + 0.2 * row for row in beats(3, victim.n)]
    raw[1] = raw[1][:400]
    expected = np.stack([ecgadv.preprocess(row, 300, victim) for row in raw])
    logits = victim.logits(expected)
    np.testing.assert_allclose(victim.pipeline(raw), logits, rtol=1e-4, atol=1e-4)
    padded = np.zeros((3, victim.n))
    for row, signal in enumerate(raw):
        padded[row, : len(signal)] = signal
    lengths = np.array([600, 400, 600])
    np.testing.assert_allclose(victim.pipeline(padded, lengths), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        victim.pipeline(padded[..., None], lengths), logits, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(victim.pipeline(raw[0]), logits[:1], rtol=1e-4, atol=1e-4)


def test_logits_take_both_shapes_and_any_number_of_rows():
    victim = random_network()
    x = beats(35, victim.n)
    logits = victim.logits(x)
    assert logits.shape == (35, 4)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(victim.logits(x[..., None]), logits)
    np.testing.assert_allclose(victim.logits(x[3:4]), logits[3:4], rtol=1e-4, atol=1e-4)
    assert victim.logits(x[:0]).shape == (0, 4)
    with pytest.raises(VictimError, match=r"expected \(B, 600\) or \(B, 600, 1\)"):
        victim.logits(x[:, :500])


def test_the_differentiable_pipeline_is_the_deployed_one():
    from ecgadv import backend
    from ecgadv.victims.pipeline import standardise, standardise_array, valid_mask

    signal = 2.0 + 0.3 * beats(2, 500)
    lengths = np.array([500, 300])
    tensor = standardise(
        backend.tensor(signal, "float32"), backend.tensor(valid_mask(lengths, 500), "float32")
    )
    array = standardise_array(signal, lengths)
    np.testing.assert_allclose(backend.to_numpy(tensor), array, atol=1e-4)
    assert array[0].mean() == pytest.approx(0, abs=1e-6)
    assert array[0].std() == pytest.approx(1, abs=1e-6)
    assert array[1, :300].std() == pytest.approx(1, abs=1e-6)
    assert not array[1, 300:].any()


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [None, layers.Softmax(), layers.Activation("softmax")])
def test_a_softmax_head_becomes_logits(last):
    model = small("softmax" if last is None else "linear", last=last)
    victim = load_victim(model)
    x = beats(5, N)
    logits = victim.logits(x).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(p, model.predict(x[..., None], verbose=0), atol=1e-5)
    assert not np.allclose(logits.sum(1), 1)
    if last is None:
        twin = small("linear")
        twin.set_weights(model.get_weights())
        np.testing.assert_allclose(logits, twin.predict(x[..., None], verbose=0), atol=1e-5)


def test_a_users_model_stays_as_it_was():
    model = small("softmax")
    before = [w.copy() for w in model.get_weights()]
    load_victim(model)
    assert model.trainable
    assert model.layers[-1].activation is keras.activations.softmax
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_without_stated_shapes_is_a_victim():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.net = small()

        def call(self, x, training=False):
            return self.net(x, training=training)

    victim = load_victim(Own(), n=N)
    assert victim.logits(beats(2, N)).shape == (2, 4)


def test_a_callable_is_a_victim():
    model = small()
    victim = load_victim(lambda x: model(x, training=False), n=N)
    x = beats(3, N)
    np.testing.assert_allclose(
        victim.logits(x), model.predict(x[..., None], verbose=0), rtol=1e-4, atol=1e-5
    )


def wrapped(after):
    """A callable: ``after`` of a small model's logits."""
    model = small()
    return lambda x: after(model(x))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrapped(ops.softmax), "outputs are probabilities"),
        (lambda: small("softmax", last=layers.Reshape((4,))), "outputs are probabilities"),
        (lambda: small("sigmoid"), "sigmoid probabilities"),
        (lambda: small(classes=5), r"5 outputs, but the classes are A, N, O, ~ \(4\)"),
        (lambda: small(classes=2), "2 outputs, but the classes are"),
        (lambda: wrapped(lambda z: z + np.float32("nan")), "not finite"),
        (lambda: lambda x: ops.ones((ops.shape(x)[0], 4)) * np.arange(4.0), "same for every"),
        (lambda: wrapped(ops.round), "gradient of its outputs by its input is zero"),
        (lambda: lambda x: ops.matmul(x, ops.ones((7, 4))), r"fails on an input of shape \(B, 300"),
        (lambda: lambda x: x, r"output \(B, 300, 1\), expected \(B, classes\)"),
        (lambda: 17, "a int is no victim"),
    ],
    ids=["probabilities", "hidden softmax", "sigmoid", "five", "two", "nan", "constant", "rounded",
         "broken", "shape", "number"],
)  # fmt: skip
def test_a_victim_that_means_nothing_is_refused(make, message):
    built = make()
    with pytest.raises(VictimError, match=message) as caught:
        load_victim(built, n=N)
    assert "\n" not in str(caught.value)


def test_a_victim_that_changes_its_mind_is_refused():
    model = small()
    dice = keras.random.SeedGenerator(1)

    def forward(x):
        return model(x) + keras.random.normal((x.shape[0], 4), seed=dice)

    with pytest.raises(VictimError, match="change from call to call"):
        load_victim(forward, n=N)


def test_dropout_is_off_in_a_victim():
    inputs = keras.Input((N, 1))
    y = layers.Dropout(0.5)(layers.Flatten()(inputs))
    victim = load_victim(keras.Model(inputs, layers.Dense(4)(y)))
    x = beats(2, N)
    np.testing.assert_array_equal(victim.logits(x), victim.logits(x))


@pytest.mark.parametrize("shape", [(N, 2, 3), (N,)])
def test_another_input_shape_is_refused(shape):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(inputs)))
    with pytest.raises(VictimError, match=r"input shape .* expected \(B, n, leads\)"):
        load_victim(model)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_file_is_a_victim(tmp_path, ending):
    model = small("softmax")
    path = tmp_path / f"mine{ending}"
    model.save(path)
    victim = load_victim(str(path))
    again = load_victim("keras", path=path)
    assert victim.name == "mine"
    assert len(victim.sha256) == 64
    assert victim.sha256 == again.sha256
    x = beats(3, N)
    np.testing.assert_array_equal(victim.logits(x), again.logits(x))
    np.testing.assert_allclose(victim.logits(x), from_keras(model).logits(x), atol=1e-5)


def test_the_card_beside_a_file_tells_the_split(tmp_path):
    path = tmp_path / "mine.keras"
    small().save(path)
    card = {"data": {"name": "cinc2017", "heldout": ["A00002"]}}
    path.with_suffix(".json").write_text(json.dumps(card))
    victim = load_victim(path)
    assert victim.split_of("cinc2017", ["A00001", "A00002"]).tolist() == ["train", "heldout"]
    assert victim.split_of("synthetic", ["A00001"]).tolist() == ["heldout"]
    path.with_suffix(".json").write_text("[1, 2]")
    assert load_victim(path).card == {}
    path.with_suffix(".json").write_text("{broken")
    with pytest.raises(VictimError, match="the card beside the model is damaged"):
        load_victim(path)


def test_a_file_with_code_inside_is_refused(tmp_path):
    inputs = keras.Input((N, 1))
    y = layers.Lambda(lambda v: 2 * v)(layers.Flatten()(inputs))
    path = tmp_path / "code.keras"
    keras.Model(inputs, layers.Dense(4)(y)).save(path)
    with pytest.raises(VictimError, match="cannot be loaded as a Keras model") as caught:
        load_victim(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.keras", "cannot be loaded as a Keras model"),
        ("text.h5", "cannot be loaded as a Keras model"),
        ("text.txt", "expected a .keras, .h5 or .hdf5 file"),
        ("absent.keras", "does not exist"),
        ("absent", "neither a shipped victim"),
        ("keras", "victim=keras needs victim.path=FILE"),
        ("torch", "victim=torch needs victim.path=FILE"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    if name.startswith("text"):
        (tmp_path / name).write_text("no such thing")
    with pytest.raises(VictimError, match=message) as caught:
        load_victim(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5", "m.pt", "m.pt2"])
def test_a_pointer_to_a_model_is_no_model(tmp_path, name):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 120000\n")
    with pytest.raises(VictimError, match=f"{name} is a Git LFS pointer, not data"):
        load_victim(str(path))


# --- the networks of this project -----------------------------------------------------------------


def test_the_34_layer_network_has_its_known_size():
    model = build("resnet34")
    assert model.count_params() == 13_316_100
    assert model.output_shape == (None, 4)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("MaxPooling1D") == 2 * 8
    assert kinds.count("Add") == 16
    kernels = [w.shape for w in model.weights if len(w.shape) == 3]
    assert sum(shape[0] == 16 for shape in kernels) == 33
    assert sum(shape[0] == 1 for shape in kernels) == 3


def test_the_compact_network_is_what_its_card_says():
    model = build("compact")
    card = json.loads((loading.WEIGHTS / "compact.json").read_text())
    assert model.count_params() == card["parameters"] == 908_036
    assert (loading.WEIGHTS / "compact.npz").stat().st_size <= 4 * 2**20
    assert set(card["classes"]) == {"A", "N", "O", "~"}
    assert card["heldout_scores"]["f1_nao_mean"] >= 0.83
    assert card["data"]["n_heldout"] == len(set(card["data"]["heldout"])) == 1707
    assert card["data"]["n_train"] + card["data"]["n_heldout"] == 8528


def test_an_unknown_architecture_is_refused():
    with pytest.raises(VictimError, match="there are compact, resnet34"):
        build("vgg")


def test_a_victim_without_shipped_weights_says_how_to_get_some(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "WEIGHTS", tmp_path)
    with pytest.raises(VictimError, match="no trained weights in this installation"):
        load_victim("resnet34")


def test_the_34_layer_victim_is_what_its_card_says():
    """Size, split, and scores that fit the stored answers."""
    card = json.loads((loading.WEIGHTS / "resnet34.json").read_text())
    assert card["parameters"] == 13_316_100
    assert (loading.WEIGHTS / "resnet34.npz").stat().st_size <= 28 * 2**20
    told = card["heldout_scores"]
    confusion = np.array(told["confusion"])
    columns = [card["heldout_predicted"].count(c) for c in card["classes"]]
    assert columns == confusion.sum(0).tolist()
    f1 = 2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1))
    assert told["f1_nao_mean"] == pytest.approx(f1[:3].mean(), abs=1e-4)
    assert told["f1_nao_mean"] >= 0.83
    other = json.loads((loading.WEIGHTS / "compact.json").read_text())
    assert card["data"]["heldout"] == other["data"]["heldout"]
    assert card["data"]["digest"] == other["data"]["digest"]


@pytest.mark.slow
def test_the_34_layer_victim_answers_what_its_card_says(cinc2017_root, tmp_path, monkeypatch):
    """Every seventeenth held-out record, classified again."""
    from ecgadv.records import cinc2017

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    records = cinc2017.load(cinc2017_root)
    victim = load_victim("resnet34")
    held = victim.card["data"]["heldout"]
    some = range(0, len(held), 17)
    batch = records.batch([records.index(held[i]) for i in some])
    said = victim.pipeline(batch.x, batch.lengths).argmax(1)
    stored = ["ANO~".index(victim.card["heldout_predicted"][i]) for i in some]
    # Rounding may turn one that lies on a boundary.
    assert (said != stored).sum() <= 1
    labels = np.array(["ANO~".index(c) for c in records.labels])
    confusion = np.zeros((4, 4), int)
    for name, letter in zip(held, victim.card["heldout_predicted"], strict=True):
        confusion[labels[records.index(name)], "ANO~".index(letter)] += 1
    assert confusion.tolist() == victim.card["heldout_scores"]["confusion"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compact", "resnet34"])
def test_no_recording_is_on_both_sides_of_the_shipped_split(
    name, cinc2017_root, tmp_path, monkeypatch
):
    """Neither by name nor by content, and the card's split is the one that its settings give."""
    from ecgadv.records import cinc2017
    from ecgadv.victims.training import TrainSettings, split_indices

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    records = cinc2017.load(cinc2017_root)
    card = json.loads((loading.WEIGHTS / f"{name}.json").read_text())
    split = {key: card["data"][key] for key in ("folds", "fold", "split_seed")}
    train, held = split_indices(records, TrainSettings(**split))
    assert [records.ids[i] for i in held] == card["data"]["heldout"]
    assert [len(train), len(held)] == [6821, 1707]
    assert not set(train) & set(held)
    contents = [{records[int(i)].signal.tobytes() for i in part} for part in (train, held)]
    assert not contents[0] & contents[1]
    # A recording that stands there twice stands on one side.
    assert len(contents[0]) == 6819


@pytest.mark.slow
def test_the_shipped_victim_scores_what_its_card_says(cinc2017_root, tmp_path, monkeypatch):
    """The whole held-out part, recomputed with scores of our own."""
    from ecgadv.records import cinc2017

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    records = cinc2017.load(cinc2017_root)
    victim = load_victim("compact")
    split = victim.split_of(records.name, records.ids)
    held = np.flatnonzero(split == "heldout")
    assert len(held) == 1707
    assert records.digest == victim.card["data"]["digest"]
    predicted = np.concatenate(
        [victim.logits(records.batch(held[i : i + 256]).x).argmax(1) for i in range(0, 1707, 256)]
    )
    truth = np.array(["ANO~".index(c) for c in records.labels[held]])
    f1 = []
    for k in range(3):
        hits = ((predicted == k) & (truth == k)).sum()
        f1.append(2 * hits / ((predicted == k).sum() + (truth == k).sum()))
    print(f"held-out F1 of A, N, O: {np.round(f1, 4)}, mean {np.mean(f1):.4f}")
    assert np.mean(f1) >= 0.83
    assert np.mean(f1) == pytest.approx(victim.card["heldout_scores"]["f1_nao_mean"], abs=2e-3)


@pytest.mark.slow
def test_the_shipped_victim_reads_enough_synthetic_records(tmp_path, monkeypatch):
    from ecgadv.evaluate.predictions import predict
    from ecgadv.records import synthetic

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    records = synthetic.load()
    correct = predict(load_victim("compact"), records).correct
    for letter in "ANO~":
        assert correct[records.labels == letter].sum() >= 20, letter


TORCH = """
import json, numpy as np, torch
torch.manual_seed(0)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 4, 7, stride=3)
        self.drop = torch.nn.Dropout(0.5)
        self.out = torch.nn.Linear(4, 4)
    def forward(self, x):
        y = torch.relu(self.conv(x.transpose(1, 2))).amax(-1)
        return self.out(self.drop(y))
import ecgadv
net = Net()
rng = np.random.default_rng(0)
x = rng.normal(size=(3, 300)).astype("float32")
victim = ecgadv.load_victim(net, n=300)
net.eval()
plain = net(torch.from_numpy(x)[..., None]).detach().numpy()
found = ecgadv.attack(net, x, steps=40)
after = victim.pipeline(x + found.delta)
print(json.dumps({
    "apart": float(np.abs(victim.logits(x) - plain).max()), "digest": len(victim.sha256),
    "success": found.success.tolist(),
    "moved": (after.argmax(1) != plain.argmax(1)).tolist(),
}))
"""


@pytest.mark.slow
def test_a_torch_module_is_a_victim(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    result = subprocess.run(
        [sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=300, cwd=REPO,
        env=environment(KERAS_BACKEND="torch"), check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["apart"] < 1e-5
    assert said["digest"] == 64
    assert said["success"] == said["moved"] == [True] * 3


def test_a_torch_module_needs_its_backend():
    """A module in a process whose Keras runs on TensorFlow cannot be differentiated."""

    class Module:
        pass

    Module.__module__ = "torch.nn.modules"
    if keras.backend.backend() != "tensorflow":
        pytest.skip("runs on another backend")
    with pytest.raises(VictimError, match="needs backend=torch"):
        load_victim(Module())


def test_what_an_included_victim_reads_cannot_be_said_otherwise():
    with pytest.raises(VictimError, match=r"^n=5000: victim compact has n=9000$"):
        load_victim("compact", n=5000, check=False)
    with pytest.raises(VictimError, match=r"^fs=100: victim compact has fs=300$"):
        load_victim("compact", fs=100, check=False)
    assert load_victim("compact", n=9000, check=False).n == 9000


@pytest.mark.parametrize("thing", [None, 3, "compactness", "x" * 5000, object()])
def test_only_names_of_included_victims_are_such(thing):
    from ecgadv.victims.declared import is_included

    assert not is_included(thing)
    assert is_included("compact")
