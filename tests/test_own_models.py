"""Anyone's model: files of other times and libraries, other shapes, rates, classes, layouts."""

import csv
import importlib.util
import json
import subprocess
import sys
import textwrap

import h5py
import keras
import numpy as np
import pytest
from helpers import REPO, beats, environment, in_process, table
from keras import layers
from keras2 import Released

import ecgadv
from ecgadv.errors import DataError, VictimError
from ecgadv.records import arrays, conversion
from ecgadv.records.preprocessing import prepare
from ecgadv.threat import metrics
from ecgadv.victims import files, keras_models
from ecgadv.victims.declared import declared
from ecgadv.victims.loading import load_victim
from ecgadv.victims.pipeline import flatten, standardise_array, unflatten

N = 300
FIVE = ["NORM", "MI", "STTC", "CD", "HYP"]


# --- the layout of Keras 2.0 ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The released network in small, with its file and the records it was computed on."""
    x = beats(6, 512, seed=4)
    network = Released(x[..., None])
    path = network.write(tmp_path_factory.mktemp("keras2") / "ResNet_30s_34lay_16conv.hdf5")
    return network, path, x


def test_a_file_of_keras_2_is_read_whole_and_answers_as_it_did(released):
    network, path, x = released
    assert sum(layer["class_name"] == "Conv1D" for layer in network.layers) == 36
    victim = load_victim("keras", path=path)
    assert (victim.n, victim.leads, victim.name) == (512, 1, "ResNet_30s_34lay_16conv")
    z = victim.logits(x).astype(np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    np.testing.assert_allclose(p / p.sum(1, keepdims=True), network.probabilities, atol=2e-5)
    np.testing.assert_allclose(z, network.logits, atol=2e-4)
    assert np.ptp(network.probabilities, axis=0).max() > 0.05
    stored = [a for group in network.arrays.values() for a in group.values()]
    held = victim.model.get_weights()
    assert len(held) == len(stored)
    assert sum(a.size for a in held) == sum(a.size for a in stored)


def test_such_a_file_can_be_attacked(released):
    _, path, x = released
    result = ecgadv.attack(str(path), x[:2], steps=30)
    assert result.success.all()


def test_weights_alone_go_into_the_architecture_layer_by_layer(released, tmp_path, monkeypatch):
    network, _, x = released
    path = network.write(tmp_path / "weights.hdf5", architecture=False)
    with pytest.raises(VictimError, match="weights without an architecture: victim=resnet34"):
        load_victim("keras", path=path)
    from ecgadv.victims import architectures

    widths = (2,) * 5 + (4,) * 4 + (6,) * 4 + (8,) * 3
    monkeypatch.setattr(architectures, "RESNET34_FILTERS", widths)
    victim = load_victim("resnet34", path=path, n=512)
    np.testing.assert_allclose(victim.logits(x), network.logits, atol=2e-4)
    monkeypatch.setattr(architectures, "RESNET34_FILTERS", widths[:-2])
    with pytest.raises(
        VictimError, match="holds 33 x batch normalisation, the architecture has 29"
    ):
        load_victim("resnet34", path=path, n=512)
    monkeypatch.setattr(architectures, "RESNET34_FILTERS", (3, *widths[1:]))
    with pytest.raises(VictimError, match=r"weights of shapes|x convolution"):
        load_victim("resnet34", path=path, n=512)


def test_nothing_is_skipped_silently(released, tmp_path):
    """A layer that the architecture lacks, and one whose values did not arrive."""
    _, path, _ = released
    copy = tmp_path / "more.hdf5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        root = file["model_weights"]
        group = root.create_group("conv1d_99")
        group.attrs["weight_names"] = np.array([b"conv1d_99/kernel:0"])
        group.create_dataset("conv1d_99/kernel:0", data=np.ones((3, 2, 2), np.float32))
        names = [*root.attrs["layer_names"], b"conv1d_99"]
        root.attrs["layer_names"] = np.array(names)
    with pytest.raises(VictimError) as caught:
        load_victim("keras", path=copy)
    assert "\n" not in str(caught.value)
    model = files.load_keras(path, "a file")
    swapped = [model.get_layer(f"conv1d_{k}") for k in (3, 5)]
    right = [layer.get_weights() for layer in swapped]
    assert [w.shape for w in right[0]] == [w.shape for w in right[1]]
    for layer, weights in zip(swapped, right[::-1], strict=True):
        layer.set_weights(weights)
    files.check_arrived(model, path, "a file")
    for layer, weights in zip(swapped, right, strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], weights[0])
    fewer = keras.Model(model.inputs, model.get_layer("activation_31").output)
    with pytest.raises(VictimError, match=r"layer .* would be skipped silently"):
        files.check_arrived(fewer, path, "a file")


def test_a_changed_head_is_noticed(monkeypatch):
    """The check of the logits against the softmax that they came from can fail."""
    inputs = keras.Input((N, 1))
    y = layers.Dense(4, activation="softmax")(layers.Flatten()(inputs))
    model = keras.Model(inputs, y)
    honest = keras_models._logits_model

    def careless(given):
        twin = honest(given)
        twin.layers[-1].set_weights([0.5 * w for w in twin.layers[-1].get_weights()])
        return twin

    monkeypatch.setattr(keras_models, "_logits_model", careless)
    with pytest.raises(VictimError, match="without its last softmax it answers otherwise"):
        load_victim(model)


# --- other layouts, rates, classes, preprocessing -------------------------------------------------


def network(shape, classes=4, seed=0):
    """A small network for inputs of any (n, leads)."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    y = layers.Conv1D(6, 9, strides=2, activation="tanh")(inputs)
    y = layers.Conv1D(8, 9, strides=2, activation="relu")(y)
    pooled = [layers.GlobalAveragePooling1D()(y), layers.GlobalMaxPooling1D()(y)]
    return keras.Model(inputs, layers.Dense(classes)(layers.Concatenate()(pooled)))


def channels_first(model):
    """The same network with inputs (B, leads, n)."""
    n, leads = model.input_shape[1:]
    inputs = keras.Input((leads, n))
    return keras.Model(inputs, model(layers.Permute((2, 1))(inputs)))


def twelve(count, n=200, leads=3, seed=0):
    """(count, n, leads) standardised signals."""
    signal = beats(count * leads, n, seed=seed).reshape(count, leads, n).transpose(0, 2, 1)
    return np.ascontiguousarray(signal)


def test_channels_first_and_last_are_one_network():
    last = network((200, 3))
    x = twelve(4)
    one = load_victim(last)
    other = load_victim(channels_first(last), channels="first")
    assert (one.shape, other.shape) == ((200, 3), (200, 3))
    np.testing.assert_allclose(one.logits(x), last.predict(x, verbose=0), atol=1e-5)
    np.testing.assert_allclose(other.logits(x), one.logits(x), atol=1e-5)
    np.testing.assert_allclose(one.logits(flatten(x)), one.logits(x), atol=0)
    assert one.sha256 != other.sha256
    with pytest.raises(VictimError, match=r"set victim\.channels to first"):
        load_victim(channels_first(last))


def test_a_hook_stands_between_standardisation_and_network(tmp_path, monkeypatch):
    """Halving by a function of one's own equals a network with its first kernel halved."""
    model = network((N, 1))
    halved = network((N, 1))
    kernel, *rest = model.get_weights()
    halved.set_weights([0.5 * kernel, *rest])
    x = beats(3, N)
    hooked = load_victim(model, preprocess=lambda z: 0.5 * z)
    np.testing.assert_allclose(hooked.logits(x), load_victim(halved).logits(x), atol=1e-5)
    (tmp_path / "my_hooks.py").write_text("def half(z):\n    return 0.5 * z\n")
    monkeypatch.chdir(tmp_path)
    named = load_victim(model, preprocess="my_hooks:half")
    np.testing.assert_allclose(named.logits(x), hooked.logits(x), atol=0)
    assert named.sha256 != load_victim(model).sha256 != ""
    with pytest.raises(VictimError, match="my_hooks has no"):
        load_victim(model, preprocess="my_hooks:third")
    with pytest.raises(VictimError, match="cannot import no_such_module"):
        load_victim(model, preprocess="no_such_module:f")


def test_standardisation_is_the_victims_own():
    raw = 2.0 + twelve(3) * np.array([0.1, 1.0, 3.0])
    lengths = np.array([200, 150, 200])
    raw[1, 150:] = 0
    each = unflatten(standardise_array(flatten(raw), lengths, 3, "lead"), 3)
    np.testing.assert_allclose(each[0].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(each[1, :150].mean(0), 0, atol=1e-5)
    assert not each[1, 150:].any()
    whole = unflatten(standardise_array(flatten(raw), lengths, 3, "record"), 3)
    assert whole[0].std() == pytest.approx(1, abs=1e-5)
    assert whole[0, :, 2].std() / whole[0, :, 0].std() == pytest.approx(30, rel=1e-3)
    bare = unflatten(standardise_array(flatten(raw), lengths, 3, "none"), 3)
    np.testing.assert_allclose(bare[0], raw[0], rtol=1e-6)
    for over, expected in (("lead", each), ("record", whole), ("none", bare)):
        got = [prepare(r[:k], 200, 3, over) for r, k in zip(raw, lengths, strict=True)]
        np.testing.assert_allclose(np.stack([g[0] for g in got]), expected, atol=1e-4)
        units = got[0][2]
        np.testing.assert_allclose(got[0][0] * units + 0, expected[0] * units, atol=1e-4)
    victim = load_victim(network((200, 3)), standardise="none")
    np.testing.assert_allclose(victim.pipeline(raw), victim.logits(raw.astype(np.float32)))


def test_the_tensors_standardise_as_the_arrays_do():
    from ecgadv import backend
    from ecgadv.victims.pipeline import valid_mask

    lengths = np.array([200, 120])
    raw = flatten(1.0 + 0.4 * twelve(2))
    valid = np.tile(valid_mask(lengths, 200), (1, 3))
    for over in ("lead", "record", "none"):
        victim = load_victim(network((200, 3)), standardise=over)
        tensor = victim.standardise(backend.tensor(raw, "float32"), backend.tensor(valid))
        array = victim.standardise_array(raw, lengths)
        np.testing.assert_allclose(backend.to_numpy(tensor), array, atol=1e-4)


def test_what_is_not_said_is_what_the_card_says(tmp_path):
    path = tmp_path / "mine.keras"
    network((200, 3), 5).save(path)
    card = {"classes": FIVE, "fs": 100, "data": {"name": "mine", "heldout": []}}
    path.with_suffix(".json").write_text(json.dumps(card))
    victim = load_victim(path)
    assert (victim.classes, victim.fs, victim.n, victim.leads) == (tuple(FIVE), 100, 200, 3)
    assert load_victim(path, fs=125).fs == 125
    assert declared({"path": path}).classes == tuple(FIVE)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"classes": ["A"]}, "at least two names"),
        ({"classes": ["A", "A"]}, "a name stands there twice"),
        ({"classes": ["A", "a/b"]}, "'a/b' is no name of a class"),
        ({"classes": ["A", "any"]}, "'any' is no name of a class"),
        ({"fs": 0}, "victim.fs=0: must be a whole number, at least 1"),
        ({"fs": 99.5}, "victim.fs=99.5: must be a whole number"),
        ({"n": 2}, "victim.n=2: must be a whole number, at least 8"),
        ({"channels": "middle"}, "must be one of last, first"),
        ({"standardise": "both"}, "must be one of lead, record, none"),
        ({"preprocess": "half"}, "must be written as module:function"),
    ],
)
def test_what_no_victim_can_be_is_refused(node, message):
    with pytest.raises(VictimError, match=message):
        declared(node)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((200, 3), {"leads": 2}, r"victim.leads=2: the model reads input shape \(None, 200, 3\)"),
        ((200, 3), {"n": 100}, "victim.n=100: the model reads"),
        ((3, 200), {}, "more leads than samples"),
        ((200, 3), {"classes": FIVE}, "4 outputs, but the classes are NORM"),
    ],
)
def test_a_model_and_what_is_said_of_it_agree(shape, options, message):
    with pytest.raises(VictimError, match=message):
        load_victim(network(shape) if shape[0] > 10 else wide(shape), **options)


def wide(shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(inputs)))


# --- module:function ------------------------------------------------------------------------------

MODULE = """
import keras
from keras import layers

def build():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((300, 1))
    y = layers.Conv1D(4, 7, strides=3, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(y)))

model = build()

def function():
    return lambda x: model(x)

def broken():
    raise RuntimeError("no weights here")

def nothing():
    return None

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_models", None)


def test_module_and_function_name_a_model(module):
    x = beats(2, N)
    made = load_victim("keras", path="my_models:build")
    held = load_victim("my_models:model")
    called = load_victim("keras", path="my_models:function", n=N)
    np.testing.assert_allclose(made.logits(x), held.logits(x), atol=1e-6)
    np.testing.assert_allclose(called.logits(x), held.logits(x), atol=1e-6)
    assert len(made.sha256) == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_models:broken", r"calling it without arguments failed \(no weights here\)"),
        ("my_models:nothing", "returned None"),
        ("my_models:number", "must name a model or a function"),
        ("my_models:absent", "my_models has no absent"),
        ("no_models:build", "cannot import no_models"),
    ],
)
def test_module_and_function_that_give_none(module, name, message):
    with pytest.raises(VictimError, match=message) as caught:
        load_victim("keras", path=name)
    assert "\n" not in str(caught.value)


# --- files that are not opened --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.onnx", "an ONNX file has no gradients of its own"),
        ("net.pkl", "a pickle can run any code"),
        ("net.ckpt", "a checkpoint is a pickle"),
        ("saved", "a SavedModel is a program"),
        ("folder", "is a folder, not a model file"),
        ("net.txt", "expected a .keras, .h5 or .hdf5 file"),
    ],
)
def test_files_that_are_not_opened_say_why(tmp_path, name, message):
    path = tmp_path / name
    if "." in name:
        path.write_bytes(b"anything")
    else:
        path.mkdir()
        if name == "saved":
            (path / "saved_model.pb").write_bytes(b"anything")
    with pytest.raises(VictimError, match=message) as caught:
        load_victim("keras", path=path)
    assert "\n" not in str(caught.value)
    from ecgadv import config

    with pytest.raises(VictimError) as early:
        config.compose_checked(["victim=keras", f"victim.path={path}"])
    assert "\n" not in str(early.value)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_code_in_a_file_is_not_run(tmp_path, ending):
    inputs = keras.Input((N, 1))
    y = layers.Lambda(lambda v: 2 * v)(layers.Flatten()(inputs))
    path = tmp_path / f"code{ending}"
    keras.Model(inputs, layers.Dense(4)(y)).save(path)
    with pytest.raises(VictimError, match="it holds Python code") as caught:
        load_victim(path)
    assert "\n" not in str(caught.value)


# --- several leads --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["l2", "diff", "diffl2"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_metric_over_leads_is_the_sum_of_its_leads(name, masked):
    n, leads, rows = 40, 3, 2
    rng = np.random.default_rng(0)
    one = metrics.get(name)
    over = one.over(leads)
    delta = rng.normal(size=(rows, n, leads))
    flat = flatten(delta)
    expected = sum(one.value(delta[..., k]) for k in range(leads))
    np.testing.assert_allclose(over.value(flat), expected)
    np.testing.assert_allclose(over.value(delta), expected)
    applied = np.stack([one.apply(delta[..., k]) for k in range(leads)], axis=-1)
    np.testing.assert_allclose(over.apply(flat), flatten(applied))
    mask = rng.random((rows, n)) < 0.7 if masked else None
    tiled = None if mask is None else np.tile(mask, (1, leads))
    small, factor = one.factor(n, mask), over.factor(n * leads, tiled)
    for call in ("solve", "whiten", "unwhiten"):
        free = np.ones((rows, n)) if mask is None else mask
        each = [getattr(one, call)(small, delta[..., k] * free) for k in range(leads)]
        got = getattr(over, call)(factor, flat * (1 if tiled is None else tiled))
        np.testing.assert_allclose(got, flatten(np.stack(each, axis=-1)), rtol=1e-9, atol=1e-12)
    assert one.over(1) is one


def test_leads_of_one_value_and_one_lead_are_the_same_attack():
    """A victim of three leads that looks at the second one only, against one of a single lead."""
    single = network((200, 1))
    inputs = keras.Input((200, 3))
    triple = keras.Model(inputs, single(inputs[:, :, 1:2]))
    x = twelve(4)
    alone = ecgadv.attack(single, x[:, :, 1], metric="diffl2", steps=30)
    among = ecgadv.attack(triple, x, metric="diffl2", steps=30)
    assert among.delta.shape == (4, 200, 3)
    assert among.success.all()
    np.testing.assert_array_equal(among.success, alone.success)
    np.testing.assert_allclose(among.distance, alone.distance, rtol=1e-2)
    assert not among.delta[..., [0, 2]].any()
    np.testing.assert_allclose(
        among.distance,
        sum(metrics.get("diffl2").value(among.delta[..., k].astype(float)) for k in range(3)),
        rtol=1e-5,
    )


def test_masks_and_lengths_of_several_leads():
    victim = load_victim(network((200, 3)))
    x = twelve(3)
    x[1, 120:] = 0
    x[1, :120] = (x[1, :120] - x[1, :120].mean(0)) / x[1, :120].std(0)
    mask = np.zeros((200, 3), bool)
    mask[:, 0] = True
    result = ecgadv.attack(victim, x, lengths=[200, 120, 200], mask=mask, metric="diff", steps=30)
    assert result.delta[..., 0].any()
    assert not result.delta[..., 1:].any()
    assert not result.delta[1, 120:].any()
    z = victim.pipeline(x.astype(np.float64) + result.delta, [200, 120, 200])
    np.testing.assert_array_equal(z.argmax(1), result.predicted)
    with pytest.raises(DataError, match=r"expected \(B, 200, 3\)"):
        ecgadv.attack(victim, x[..., 0])
    with pytest.raises(VictimError, match=r"expected \(samples, 3\) for each record"):
        victim.pipeline(x[..., :2])
    x[2, :, 1] = 0
    with pytest.raises(DataError, match="row 2 is a flat line in lead 2"):
        ecgadv.attack(victim, x)


def test_a_callable_of_several_leads_takes_its_shape_from_the_records():
    model = network((200, 3), 5)
    result = ecgadv.attack(
        load_victim(lambda x: model(x), n=200, leads=3, classes=FIVE), twelve(2), "MI", steps=30
    )
    assert result.predicted.tolist() == [1, 1]
    four = network((200, 3))
    assert ecgadv.attack(lambda x: four(x), twelve(2), steps=10).delta.shape == (2, 200, 3)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A folder with a 12-lead, 100 Hz, 5-class victim of random weights, and records at 500 Hz."""
    folder = tmp_path_factory.mktemp("clinic")
    rng = np.random.default_rng(0)
    time = np.arange(5000) / 500
    signals = []
    for _ in range(10):
        period = rng.uniform(0.5, 1.1)
        phase = ((time + rng.uniform(0, period)) % period) - 0.5 * period
        wave = np.exp(-0.5 * (phase / 0.015) ** 2) + 0.2 * np.exp(
            -0.5 * ((phase - 0.2) / 0.05) ** 2
        )
        noise = 0.05 * rng.normal(size=(12, time.size))
        signals.append((rng.normal(size=(12, 1)) * wave + noise).T)
    signals = np.array(signals)
    signals[9, :, 4] = 0.3
    model = network((1000, 12), 5)
    head = model.layers[-1]
    victim = load_victim(model, fs=100, classes=FIVE, check=False)
    x = np.stack([ecgadv.preprocess(s, 500, victim) for s in signals[:9]])
    z = model.predict(x, verbose=0)
    kernel, _ = head.get_weights()
    head.set_weights([3 * kernel / z.std(0), -3 * z.mean(0) / z.std(0)])
    model.save(folder / "twelve.keras")
    card = {"classes": FIVE, "fs": 100, "n_samples": 1000}
    (folder / "twelve.json").write_text(json.dumps(card))
    words = {"NORM": "normal", "MI": "infarction"}
    labels = [FIVE[k] for k in model.predict(x, verbose=0).argmax(1)] + ["NORM"]
    np.savez(
        folder / "records.npz", signals=signals, fs=500.0,
        labels=np.array([words.get(label, label) for label in labels]),
    )  # fmt: skip
    return folder, x, labels


def clinic_command(folder, root):
    return [
        "victim=keras", f"victim.path={folder / 'twelve.keras'}", "data=arrays",
        f"data.root={folder / 'records.npz'}", "tracking=none", f"paths.root={root}",
        f"paths.data={root / 'cache'}", "attack.steps=20", "selection=all",
        "data.label_map={normal: NORM, infarction: MI}",
    ]  # fmt: skip


def test_twelve_leads_five_classes_end_to_end(clinic, tmp_path, capsys):
    """Recordings of 12 leads at 500 Hz, a victim at 100 Hz with classes of its own."""
    folder, x, _ = clinic
    code, run_folder = in_process(*clinic_command(folder, tmp_path), "metric=diffl2")
    assert code == 0
    rows = table(run_folder)
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert [row["record"] for row in skipped] == ["R00010"]
    assert "lead 5 of 12" in skipped[0]["message"]
    done = [row for row in rows if row["status"] == "ok"]
    assert len(done) == 9 * 4
    assert {row["source"] for row in done} | {row["target"] for row in done} == set(FIVE)
    assert all(row["success"] == "true" and row["predicted"] == row["target"] for row in done)
    run = ecgadv.load_run(run_folder)
    assert run.delta.shape == run.x.shape == (36, 1000, 12)
    assert run.scale_mv.shape == (36, 12)
    np.testing.assert_allclose(run.x[0], x[0], atol=1e-4)
    sizes = sum(metrics.d_l2(run.delta[..., k].astype(float)) for k in range(12))
    np.testing.assert_allclose(run.cases["d_l2"].dropna(), sizes, rtol=1e-5)
    smooth = sum(metrics.d_smooth(run.delta[..., k].astype(float)) for k in range(12))
    np.testing.assert_allclose(run.cases["d_smooth"].dropna(), smooth, rtol=1e-4)
    victim = load_victim(folder / "twelve.keras")
    answers = victim.pipeline(run.x.astype(float) + run.delta).argmax(1)
    assert [FIVE[k] for k in answers] == [row["target"] for row in done]
    assert "could not be read again" not in (run_folder / "report.html").read_text()
    assert list((run_folder / "figures").glob("best_1_*.png"))
    told = capsys.readouterr()
    assert "STTC" in told.out
    assert "was trained on" not in told.err
    # The same perturbations judged again by the same victim, from the folder alone.
    code, again = in_process(
        "task=evaluate", f"evaluate.run={run_folder}", *clinic_command(folder, tmp_path)
    )
    assert code == 0
    assert json.loads((again / "summary.json").read_text())["n_success"] == 36


def test_the_held_out_part_of_a_victim_without_a_record_of_its_training(clinic, tmp_path, capsys):
    folder, _, _ = clinic
    command = [*clinic_command(folder, tmp_path), "attack.steps=2", "selection.split=heldout"]
    code, run_folder = in_process(*command, "selection.per_class=1")
    assert code == 0
    assert "nothing says what victim twelve was trained on" in capsys.readouterr().err
    assert {row["split"] for row in table(run_folder) if row["status"] == "ok"} == {"heldout"}


def test_a_class_of_ones_own_is_a_target(clinic, tmp_path):
    folder, _, labels = clinic
    command = clinic_command(folder, tmp_path)
    code, run_folder = in_process(*command, "target=MI", "selection.source=[NORM,HYP,CD,STTC]")
    assert code == 0
    done = [row for row in table(run_folder) if row["status"] == "ok"]
    assert {row["target"] for row in done} == {"MI"}
    assert len(done) == sum(label != "MI" for label in labels[:9])


@pytest.mark.parametrize("universal", ["false", "true"])
def test_signals_are_injected_into_a_victim_of_other_classes(tmp_path, universal):
    """One lead, 100 Hz, three classes: the files and the summary have these, not A, N, O, ~."""
    rng = np.random.default_rng(1)
    signals = np.cumsum(rng.normal(size=(24, 600)), axis=1)
    signals -= signals.mean(1, keepdims=True)
    x = np.stack([ecgadv.preprocess(s, 300, n=600) for s in signals])[..., None]
    model = network((600, 1), 3)
    kernel, _ = model.layers[-1].get_weights()
    z = model.predict(x, verbose=0)
    model.layers[-1].set_weights([3 * kernel / z.std(0), -3 * z.mean(0) / z.std(0)])
    model.save(tmp_path / "own.keras")
    three = ["SR", "AF", "VT"]
    labels = [three[k] for k in model.predict(x, verbose=0).argmax(1)]
    np.savez(tmp_path / "records.npz", signals=signals, fs=100.0, labels=np.array(labels))
    source, target = sorted(three, key=labels.count)[::-2]
    code, folder = in_process(
        "victim=keras", f"victim.path={tmp_path / 'own.keras'}", "victim.classes=[SR,AF,VT]",
        "victim.fs=100", "data=arrays", f"data.root={tmp_path / 'records.npz'}", "tracking=none",
        f"paths.root={tmp_path}", f"paths.data={tmp_path / 'cache'}", "threat_model=type2",
        f"target={target}", f"selection.source=[{source}]", "attack.steps=20", "filter.mains=[]",
        "evaluation.mains=[]", "evaluation.shifts=10", "evaluation.max_records=2",
        "attack.train_records=2", f"universal={universal}",
    )  # fmt: skip
    assert code == 0
    with (folder / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    hits = [k for k in rows[0] if k.startswith("hits_")]
    assert hits == ["hits_SR", "hits_AF", "hits_VT"]
    for row in rows:
        assert sum(int(row[k]) for k in hits) == 10
        assert int(row[f"hits_{target}"]) >= int(row["n_success"])
        assert float(row["success_rate"]) == int(row["n_success"]) / int(row["n_clean"])
    assert {row["source"] for row in rows} == (
        {source} if universal == "false" else set(three) - {target}
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert f"{source}>{target}" in summary["evaluation"]["other_records"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target=MX"], "target=MX: there is no such option"),
        (["selection.source=[A]"], "choose from NORM, MI, STTC, CD, HYP"),
        (["evaluation.mains=[60]"], "evaluation.mains=[60]: must be above 0 and below half the"),
        (["window=11s", "threat_model=type2"], "at most the recording's"),
        (["victim.channels=first"], "set victim.channels to last"),
        (["victim.leads=3"], "victim.leads=3: the model reads"),
        (["victim.classes=[NORM,MI]"], "5 outputs, but the classes are NORM, MI"),
    ],
)
def test_twelve_leads_bad_input(clinic, tmp_path, capsys, overrides, message):
    from ecgadv import cli

    folder, _, _ = clinic
    code = cli.main([*clinic_command(folder, tmp_path), *overrides])
    assert code != 0
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_records_and_victim_have_the_same_leads(clinic, tmp_path, capsys):
    from ecgadv import cli

    folder, _, _ = clinic
    code = cli.main(
        ["victim=keras", f"victim.path={folder / 'twelve.keras'}", "tracking=none",
         "victim.classes=[A,N,O,noise,X]", f"paths.root={tmp_path}", "data.per_class=2",
         f"paths.data={tmp_path / 'cache'}"]
    )  # fmt: skip
    assert code != 0
    assert "reads 12 lead(s), the records of data=synthetic have 1" in capsys.readouterr().err


# --- recordings for them --------------------------------------------------------------------------


def test_arrays_of_several_leads_at_the_victims_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
    signals = np.random.default_rng(0).normal(size=(3, 400, 2))
    signals[1, 300:] = np.nan
    np.savez(tmp_path / "a.npz", signals=signals, labels=["N", "X", "sinus"], fs=200.0)
    records = arrays.load(
        tmp_path / "a.npz", rate=100, classes=("N", "X"), label_map={"sinus": "N"}
    )
    assert (records.leads, records.fs, len(records)) == (2, 100, 3)
    assert records.lengths.tolist() == [200, 150, 200]
    assert records.labels.tolist() == ["N", "X", "N"]
    batch = records.batch([0, 1], 180)
    assert batch.x.shape == (2, 180, 2)
    assert batch.scale_mv.shape == (2, 2)
    assert batch.lengths.tolist() == [180, 150]
    one = conversion.resample(signals[0, :, 1], 200, 100)
    np.testing.assert_allclose(records[0].signal[:, 1], one, atol=1e-6)
    assert records.at(50).fs == 50
    assert records.at(50)[0].signal.shape == (100, 2)
    with pytest.raises(DataError, match=r"data.label_map.sinus=A: map to N or X"):
        arrays.load(tmp_path / "a.npz", classes=("N", "X"), label_map={"sinus": "A"})


def test_wfdb_records_of_several_leads(tmp_path, monkeypatch):
    import wfdb

    from ecgadv.records import wfdb as reader

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
    signal = np.random.default_rng(0).normal(size=(500, 3)).cumsum(0)
    wfdb.wrsamp(
        "rec", fs=250, units=["mV", "uV", "mV"], sig_name=["I", "II", "V1"],
        p_signal=signal * [1, 1000, 1], fmt=["32"] * 3, write_dir=str(tmp_path),
    )  # fmt: skip
    (tmp_path / "REFERENCE.csv").write_text("rec,N\n")
    every = reader.load(tmp_path, lead="all", rate=125)[0].signal
    assert every.shape == (250, 3)
    for k in range(3):
        expected = conversion.resample(signal[:, k], 250, 125)
        np.testing.assert_allclose(every[:, k], expected, atol=1e-3)
    swapped = reader.load(tmp_path, lead=["V1", "I"], rate=125)[0].signal
    np.testing.assert_allclose(swapped, every[:, [2, 0]])
    assert reader.load(tmp_path, lead=["II"], rate=125)[0].signal.shape == (250,)


# --- PyTorch --------------------------------------------------------------------------------------

TORCH = """
import json, sys, numpy as np, torch, warnings
warnings.simplefilter("ignore")
folder = sys.argv[1]
torch.manual_seed(0)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(2, 6, 9, stride=2)
        self.out = torch.nn.Linear(6, 4)
    def forward(self, x):
        y = torch.relu(self.conv(x)).amax(-1)
        return self.out(y)

class Cut(Net):
    def forward(self, x):
        return super().forward(x).detach()

class Writes(Net):
    def forward(self, x):
        y = super().forward(x)
        torch.save(y, "somewhere.pt")
        return y

net = Net().eval()
x = torch.randn(2, 2, 200)
torch.jit.script(net).save(f"{folder}/script.pt")
torch.jit.trace(net, x).save(f"{folder}/trace.pt")
class CutScript(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
    def forward(self, x):
        with torch.no_grad():
            return self.net(x)
torch.jit.script(CutScript()).save(f"{folder}/cut.pt")
batch = torch.export.Dim("batch", min=1, max=4096)
program = torch.export.export(net, (x,), dynamic_shapes={"x": {0: batch}})
torch.export.save(program, f"{folder}/export.pt2")
torch.save(net.state_dict(), f"{folder}/state.pth")

import ecgadv
from ecgadv.errors import EcgadvError
signal = x.numpy().transpose(0, 2, 1)
signal = (signal - signal.mean(1, keepdims=True)) / signal.std(1, keepdims=True)
plain = net(torch.from_numpy(np.ascontiguousarray(signal.transpose(0, 2, 1)))).detach().numpy()
said = {}
options = {"n": 200, "leads": 2, "channels": "first"}
for name in ("script.pt", "trace.pt", "export.pt2", "cut.pt", "state.pth"):
    try:
        victim = ecgadv.load_victim("torch", path=f"{folder}/{name}", **options)
        found = ecgadv.attack(victim, signal, steps=30)
        said[name] = {"apart": float(abs(victim.logits(signal) - plain).max()),
                      "success": found.success.tolist(), "digest": len(victim.sha256)}
    except EcgadvError as error:
        said[name] = str(error)

# An archive that asks for unpickling of anything else than tensors.
import io, zipfile, pickle, os
class Evil:
    def __reduce__(self):
        return os.system, (f"touch {folder}/owned",)
source = zipfile.ZipFile(f"{folder}/export.pt2")
with zipfile.ZipFile(f"{folder}/evil.pt2", "w") as target:
    for item in source.namelist():
        content = source.read(item)
        if "/data/" in item and not item.endswith((".json", "version")) or item.endswith(".pt"):
            buffer = io.BytesIO()
            torch.save(Evil(), buffer)
            content = buffer.getvalue()
        target.writestr(item, content)
try:
    ecgadv.load_victim("torch", path=f"{folder}/evil.pt2", **options)
    said["evil"] = "loaded"
except EcgadvError as error:
    said["evil"] = str(error)
said["owned"] = os.path.exists(f"{folder}/owned")
print(json.dumps(said))
"""


@pytest.mark.slow
def test_files_of_torch_are_victims(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    # TorchScript compiles from source, so there must be a file of it.
    job = tmp_path / "job.py"
    job.write_text(TORCH)
    result = subprocess.run(
        [sys.executable, str(job), str(tmp_path)], capture_output=True, text=True, timeout=300,
        cwd=REPO, env=environment(KERAS_BACKEND="torch"), check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    said = json.loads(result.stdout.splitlines()[-1])
    for name in ("script.pt", "trace.pt", "export.pt2"):
        assert said[name]["apart"] < 1e-4, name
        assert said[name]["success"] == [True, True], name
        assert said[name]["digest"] == 64, name
    assert "gradient" in said["cut.pt"]
    assert "cannot be loaded as TorchScript or torch.export program" in said["state.pth"]
    assert not said["owned"]
    assert all("\n" not in text for text in said.values() if isinstance(text, str))


def test_torch_files_need_their_backend(tmp_path):
    from ecgadv import config
    from ecgadv.errors import BackendError

    path = tmp_path / "net.pt"
    path.write_bytes(b"anything")
    with pytest.raises(BackendError, match="victim=torch needs backend=torch, not backend=tens"):
        config.compose_checked(["victim=torch", f"victim.path={path}"])
    if keras.backend.backend() != "torch":
        with pytest.raises(VictimError, match="needs backend=torch") as caught:
            load_victim("torch", path=path)
        assert "\n" not in str(caught.value)


def test_a_backend_that_is_not_installed_is_one_line(tmp_path):
    if importlib.util.find_spec("jax") is not None:
        pytest.skip("jax is installed")
    script = textwrap.dedent("""
        from ecgadv import backend
        backend.configure("jax")
    """)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO,
        env=environment(), check=False,
    )  # fmt: skip
    last = result.stderr.strip().splitlines()[-1]
    assert "package jax is not installed (pip install" in last
