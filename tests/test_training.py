"""Training: what is learnt from, what is held out, and going on after a kill."""

import dataclasses
import json
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import REPO, environment, in_process

from ecgadv.errors import ConfigError, DataError, StoreError
from ecgadv.records import synthetic
from ecgadv.records.base import RecordSet
from ecgadv.victims import architectures, scores
from ecgadv.victims.inputs import preprocess
from ecgadv.victims.splits import stratified_folds
from ecgadv.victims.training import TrainSettings, augment, split_indices, train

FAST = TrainSettings(architecture="toy", epochs=3, batch_size=8, folds=4, learning_rate=1e-2)


def toy(n: int = 9000, classes: int = 4) -> keras.Model:
    """A network that learns something of nine thousand samples in a second."""
    inputs = keras.Input((n, 1))
    y = keras.layers.Conv1D(8, 15, strides=8)(inputs)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
    y = keras.layers.Dropout(0.2)(keras.layers.GlobalMaxPooling1D()(y))
    return keras.Model(inputs, keras.layers.Dense(classes)(y))


@pytest.fixture(autouse=True)
def _known_architecture(monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "toy", toy)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> RecordSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGADV_CACHE", str(tmp_path_factory.mktemp("cache")))
        return synthetic.load(per_class=8)


# --- splits ---------------------------------------------------------------------------------------


def test_folds_share_the_classes_evenly():
    labels = np.array(["A"] * 11 + ["N"] * 50 + ["O"] * 24 + ["~"] * 6)
    fold = stratified_folds(labels, 5, seed=3)
    for letter in "ANO~":
        counts = np.bincount(fold[labels == letter], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(fold, stratified_folds(labels, 5, seed=3))
    assert (fold != stratified_folds(labels, 5, seed=4)).any()


def test_no_record_is_in_both_parts(records):
    everything = []
    for fold in range(4):
        rows, held = split_indices(records, dataclasses.replace(FAST, fold=fold))
        assert not set(rows) & set(held)
        assert sorted([*rows, *held]) == list(range(len(records)))
        everything += held.tolist()
    assert sorted(everything) == list(range(len(records)))


def test_unlabelled_and_unusable_records_are_left_out():
    rng = np.random.default_rng(0)
    rows = [(f"R{i}", "ANO~"[i % 4], rng.normal(size=3000)) for i in range(20)]
    rows[3] = ("R3", "~", np.zeros(3000))
    rows[4] = ("R4", "", rng.normal(size=3000))
    train_rows, held = split_indices(RecordSet.pack("own", rows), FAST)
    assert sorted([*train_rows, *held]) == [i for i in range(20) if i not in (3, 4)]
    with pytest.raises(DataError, match="too few labelled records"):
        split_indices(RecordSet.pack("own", rows[:1]), FAST)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("fold", 4),
        ("folds", 1),
        ("precision", "float16"),
        ("short_epochs", 3),
        ("short_seconds", 0.5),
        ("short_seconds", 31),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ConfigError, match=rf"train\.{field}|train\.fold="):
        dataclasses.replace(FAST, **{field: value})


# --- views and scores -----------------------------------------------------------------------------


def test_a_view_is_standardised_and_padded():
    signal = 5 + 3 * np.random.default_rng(0).normal(size=7000)
    rng = np.random.default_rng(1)
    views = np.stack([augment(signal, rng) for _ in range(40)])
    assert views.shape == (40, 9000)
    assert views.dtype == np.float32
    np.testing.assert_allclose(views[:, :7000].mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(views[:, :7000].std(1), 1, atol=1e-4)
    assert not views[:, 7000:].any()
    plain = preprocess(signal, 300)
    found = {
        kind: sum(test(view) for view in views)
        for kind, test in {
            "as it is": lambda v: np.allclose(v, plain, atol=1e-4),
            "upside down": lambda v: np.allclose(v, -plain, atol=1e-4),
            "the same samples": lambda v: np.allclose(
                np.sort(np.abs(v[:7000])), np.sort(np.abs(plain[:7000])), atol=1e-3
            ),
        }.items()
    }
    assert found["the same samples"] == 40
    assert 3 <= found["as it is"] <= 20
    assert 3 <= found["upside down"] <= 20


def test_a_long_record_is_cropped_anywhere():
    signal = np.arange(12000.0)
    rng = np.random.default_rng(0)
    views = [augment(signal, rng) for _ in range(10)]
    # A straight line stays one in every crop that is neither shifted nor cut short.
    assert all(view.shape == (9000,) for view in views)
    assert all(view.std() == pytest.approx(1, abs=1e-3) for view in views)


def test_scores_are_those_of_the_challenge():
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 3])
    read = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    confusion = scores.confusion_matrix(truth, read, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 3, 1, 0], [0, 0, 2, 0], [0, 0, 1, 0]]
    f1 = [2 * 2 / (3 + 2), 2 * 3 / (4 + 4), 2 * 2 / (2 + 4), 0.0]
    np.testing.assert_allclose(scores.f1_scores(confusion), f1)
    found = scores.summary(confusion)
    assert found["f1_nao_mean"] == pytest.approx(np.mean(f1[:3]), abs=1e-4)
    assert found["accuracy"] == 0.7
    assert found["n"] == 10


# --- training -------------------------------------------------------------------------------------


def test_a_training_learns_and_writes_its_card(records, tmp_path):
    seen = []
    settings = dataclasses.replace(FAST, epochs=12, learning_rate=3e-2)
    done = train(
        records, settings, tmp_path, command="me", labels_version="v", progress=seen.append
    )
    assert [row["epoch"] for row in seen] == list(range(1, 13))
    assert done.history == seen == json.loads((tmp_path / "history.json").read_text())
    assert np.mean([r["loss"] for r in seen[-3:]]) < 0.9 * seen[0]["loss"]
    card = done.card
    assert card["classes"] == ["A", "N", "O", "~"]
    assert card["data"]["digest"] == records.digest
    assert card["data"]["n_heldout"] == 8
    assert card["data"]["n_train"] == 24
    assert card["data"]["split_seed"] == 0
    assert card["data"]["labels_version"] == "v"
    assert card["command"] == "me"
    assert card["parameters"] == done.model.count_params()
    assert card["settings"]["epochs"] == 12
    _, held = split_indices(records, settings)
    assert card["data"]["heldout"] == [records.ids[i] for i in held]
    batch = records.batch(held)
    read = np.asarray(done.model(batch.x[..., None], training=False)).argmax(1)
    truth = np.array(["ANO~".index(c) for c in batch.labels])
    assert card["heldout_scores"]["accuracy"] == pytest.approx((read == truth).mean(), abs=1e-4)
    assert json.loads(json.dumps(card)) == card


def test_held_out_records_are_never_learnt_from(records, tmp_path, monkeypatch):
    from ecgadv.victims import training

    used = set()
    original = training.augment

    def watched(signal, rng, n=9000):
        used.add(signal.tobytes())
        return original(signal, rng, n)

    monkeypatch.setattr(training, "augment", watched)
    train(records, FAST, tmp_path)
    rows, held = split_indices(records, FAST)
    assert used <= {records[int(i)].signal.tobytes() for i in rows}
    assert len(used) >= 20
    assert not used & {records[int(i)].signal.tobytes() for i in held}


def same(left, right):
    """Losses and scores of two histories, and the weights behind them."""
    for a, b in zip(left.history, right.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["heldout_f1_nao_mean"] == pytest.approx(b["heldout_f1_nao_mean"], abs=1e-3)
    for a, b in zip(left.model.get_weights(), right.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def dense_over_all(n: int = 9000, classes: int = 4) -> keras.Model:
    """A network whose last layer has weights for every instant, as the 34-layer one."""
    inputs = keras.Input((n, 1))
    y = keras.layers.Conv1D(8, 15, strides=8, padding="same")(inputs)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
    y = keras.layers.Flatten()(keras.layers.MaxPooling1D(16)(y))
    return keras.Model(inputs, keras.layers.Dense(classes)(y))


def test_short_crops_first_then_whole_recordings(records, tmp_path, monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "flat", dense_over_all)
    settings = dataclasses.replace(FAST, architecture="flat", epochs=4, short_epochs=2,
                                   short_seconds=7.0)  # fmt: skip
    whole = train(records, settings, tmp_path / "whole")
    assert [row["samples"] for row in whole.history] == [2100, 2100, 9000, 9000]
    assert whole.model.input_shape == (None, 9000, 1)
    assert whole.card["settings"]["short_epochs"] == 2
    for epoch in (1, 2, 3):
        folder = tmp_path / str(epoch)
        with pytest.raises(StoppedError):
            train(records, settings, folder, progress=stop_after(epoch))
        same(train(records, settings, folder), whole)


def test_a_widened_network_answers_a_steady_signal_the_same():
    from ecgadv.victims import training

    networks = []
    for n in (1024, 4096):
        model = dense_over_all(n)
        model.compile(optimizer=keras.optimizers.Adam())
        model.optimizer.build(model.trainable_variables)
        networks.append(model)
    short, long = networks
    training._take_over(long, short)
    rng = np.random.default_rng(0)
    period = rng.normal(size=128)
    answers = [m.predict_on_batch(np.tile(period, m.input_shape[1] // 128)[None, :, None])
               for m in networks]  # fmt: skip
    np.testing.assert_allclose(answers[1], answers[0], rtol=0.1, atol=0.05)
    assert np.abs(answers[0]).max() > 0.1


def test_mixed_arithmetic_ends_in_a_float32_victim(records, tmp_path):
    settings = dataclasses.replace(FAST, epochs=1, precision="bfloat16")
    model = train(records, settings, tmp_path).model
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


class StoppedError(Exception):
    """Stands for a kill."""


def stop_after(epoch):
    def progress(row):
        if row["epoch"] == epoch:
            raise StoppedError

    return progress


def test_the_same_seed_gives_the_same_network(records, tmp_path):
    one, two = train(records, FAST, tmp_path / "1"), train(records, FAST, tmp_path / "2")
    same(one, two)
    three = train(records, dataclasses.replace(FAST, seed=1), tmp_path / "3")
    assert three.history[0]["loss"] != one.history[0]["loss"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(records, tmp_path, epoch):
    whole = train(records, FAST, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(records, FAST, tmp_path / "cut", progress=stop_after(epoch))
    seen = []
    again = train(records, FAST, tmp_path / "cut", progress=seen.append)
    assert [row["epoch"] for row in seen] == list(range(epoch + 1, 4))
    same(again, whole)


def test_killed_between_history_and_checkpoint(records, tmp_path, monkeypatch):
    from ecgadv.victims import training

    whole = train(records, FAST, tmp_path / "whole")
    save, saved = training._save, []

    def second_fails(model, path):
        saved.append(path)
        if len(saved) == 2:
            raise StoppedError
        save(model, path)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", second_fails)
        with pytest.raises(StoppedError):
            train(records, FAST, tmp_path / "cut")
    log = json.loads((tmp_path / "cut" / "history.json").read_text())
    assert [row["epoch"] for row in log] == [1, 2]
    again = train(records, FAST, tmp_path / "cut")
    assert [row["epoch"] for row in again.history] == [1, 2, 3]
    same(again, whole)


def test_a_damaged_checkpoint_is_one_line(records, tmp_path):
    train(records, dataclasses.replace(FAST, epochs=1), tmp_path)
    (tmp_path / "checkpoint.keras").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"checkpoint\.keras: cannot be resumed from") as caught:
        train(records, FAST, tmp_path)
    assert "\n" not in str(caught.value)


# --- the task -------------------------------------------------------------------------------------

SMALL = ["task=train", "tracking=none", "train.epochs=2", "train.limit=40", "train.batch_size=8"]


@pytest.mark.slow
def test_the_task_from_a_kill_to_a_victim(tmp_path):
    """Killed outright after the first epoch, started again, then loaded as a victim."""
    killer = (
        "import os, signal, sys\nreplace = os.replace\n"
        "def watched(source, target, **options):\n"
        "    replace(source, target, **options)\n"
        "    if os.path.basename(os.fspath(target)) == 'checkpoint.keras':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.replace = watched\nfrom ecgadv.cli import main\nsys.exit(main())"
    )
    here = [*SMALL, f"paths.root={tmp_path}"]
    dead = subprocess.run(
        [sys.executable, "-c", killer, *here], capture_output=True, text=True, cwd=REPO,
        env=environment(), timeout=300, check=False,
    )  # fmt: skip
    assert dead.returncode == -signal.SIGKILL, dead.stderr[-2000:]
    code, folder = in_process(*here)
    assert code == 0
    assert [row["epoch"] for row in json.loads((folder / "history.json").read_text())] == [1, 2]
    card = json.loads((folder / "victim.json").read_text())
    assert "task=train" in card["command"]
    assert card["data"]["name"] == "synthetic"
    from ecgadv.victims.loading import load_victim

    victim = load_victim(folder / "victim.keras")
    assert victim.card == card
    assert set(victim.split_of("synthetic", card["data"]["heldout"])) == {"heldout"}
