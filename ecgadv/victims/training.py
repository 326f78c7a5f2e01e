"""Training a victim: seeded, resumable after a kill, held-out records never seen."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from ecgadv import backend
from ecgadv.errors import ConfigError, DataError, StoreError
from ecgadv.options import Seed, check_fields
from ecgadv.records.base import CLASSES, Batch, RecordSet
from ecgadv.records.preprocessing import FS, N_SAMPLES, fill_missing
from ecgadv.victims import scores
from ecgadv.victims.pipeline import standardise_array
from ecgadv.victims.splits import stratified_folds

if TYPE_CHECKING:
    import keras

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainSettings:
    """What decides the outcome of a training.

    Attributes:
        architecture: a name of ``ecgadv.victims.architectures``.
        epochs: passes over the training records; the last one is kept, none is selected.
        batch_size: records a step.
        learning_rate: peak of the cosine schedule (after one epoch of warm-up).
        weight_decay: of AdamW.
        class_weight: exponent e of the class weights frequency^-e; 0 leaves classes as they are.
        seed: of weights, order, augmentation and dropout.
        folds: parts of the stratified split.
        fold: the part that is held out.
        split_seed: of the split.
        precision: ``float32`` or ``bfloat16`` (mixed).
        limit: number of records used, taken in order from every class; 0 means all.
        short_epochs: epochs at the start that see short crops, for the filters to be learnt at a
            fraction of the cost; the network is widened to whole recordings afterwards.
        short_seconds: length of these crops.
    """

    architecture: Literal["compact", "resnet34"] = "compact"
    epochs: Annotated[int, Ge(1)] = 36
    batch_size: Annotated[int, Ge(1)] = 64
    learning_rate: Annotated[float, Gt(0)] = 2e-3
    weight_decay: Annotated[float, Ge(0)] = 2e-2
    class_weight: Annotated[float, Ge(0)] = 0.5
    seed: Seed = 0
    folds: Annotated[int, Ge(2)] = 5
    fold: Annotated[int, Ge(0)] = 0
    split_seed: Seed = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    limit: Annotated[int, Ge(0)] = 0
    short_epochs: Annotated[int, Ge(0)] = 0
    short_seconds: Annotated[float, Ge(1), Le(N_SAMPLES / FS)] = 10.0

    def __post_init__(self) -> None:
        check_fields(self, "train")
        if self.fold >= self.folds:
            raise ConfigError(
                f"train.fold={self.fold}: must be below train.folds={self.folds} (counted from 0)"
            )
        if self.short_epochs >= self.epochs:
            raise ConfigError(
                f"train.short_epochs={self.short_epochs}: must be below train.epochs={self.epochs}"
            )

    def samples(self, epoch: int) -> int:
        """Samples of the network's input in an epoch, counted from 0."""
        return round(self.short_seconds * FS) if epoch < self.short_epochs else N_SAMPLES


@dataclass(frozen=True)
class Trained:
    """A finished training: the network, its card, and the loss and scores of every epoch."""

    model: keras.Model
    card: dict[str, Any]
    history: list[dict[str, Any]]


def augment(signal: np.ndarray, rng: np.random.Generator, n: int = N_SAMPLES) -> np.ndarray:
    """One training view of a recording: random crop, circular shift, sign flip, standardised.

    Args:
        signal: (samples,) in any unit.
        rng: where the crop, the shift and the sign come from.
        n: samples of the result.

    Returns:
        (n,) float32, zero-padded at the end.
    """
    start = rng.integers(0, len(signal) - n + 1) if len(signal) > n else 0
    view = fill_missing(np.asarray(signal[start : start + n], dtype=np.float64))
    if rng.random() < 0.5:
        view = np.roll(view, int(rng.integers(0, len(view))))
    if rng.random() < 0.5:
        view = -view
    out = np.zeros(n, dtype=np.float32)
    out[: len(view)] = (view - view.mean()) / max(view.std(), 1e-9)
    return out


def split_indices(records: RecordSet, settings: TrainSettings) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the training and of the held-out records.

    Raises:
        DataError: no labelled, usable record is left on one side.
    """
    usable = [i for i in range(len(records)) if records.labels[i] in CLASSES]
    if settings.limit:
        labels = records.labels[usable]
        share = [np.asarray(usable)[labels == c][: math.ceil(settings.limit / 4)] for c in CLASSES]
        usable = sorted(np.concatenate(share).tolist())
    chosen = np.array([i for i in usable if not records.unusable(i)], dtype=np.int64)
    fold = stratified_folds(records.labels[chosen], settings.folds, settings.split_seed)
    train, held = chosen[fold != settings.fold], chosen[fold == settings.fold]
    if not len(train) or not len(held):
        raise DataError(f"{records.name}: too few labelled records to train ({len(chosen)})")
    return train, held


def _compile(model: keras.Model, settings: TrainSettings, steps: int) -> None:
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, steps * (settings.epochs - 1)),
        warmup_target=settings.learning_rate,
        warmup_steps=steps if settings.epochs > 1 else 1,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, clipnorm=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=False)


def _save(model: keras.Model, path: Path) -> None:
    scratch = path.with_name(f".{path.stem}.partial.keras")
    model.save(scratch)
    os.replace(scratch, path)


def _build(settings: TrainSettings, n: int, steps: int, precision: str) -> keras.Model:
    """The network for inputs of ``n`` samples, compiled."""
    from ecgadv.victims.architectures import build

    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    model = build(settings.architecture, n=n, policy=policy)
    _compile(model, settings, steps)
    model.optimizer.build(model.trainable_variables)
    return model


def _take_over(model: keras.Model, earlier: keras.Model) -> None:
    """Weights and optimiser state of the same network for inputs of this length or shorter.

    What one input length has and the other has not is a dense layer over all instants: each of the
    longer one's gets the mean over the earlier one's, so that a steady signal is answered the same.
    """
    import keras

    pairs = [*zip(model.weights, earlier.weights, strict=True)]
    pairs += zip(model.optimizer.variables, earlier.optimizer.variables, strict=True)
    for ours, theirs in pairs:
        value, shape = keras.ops.convert_to_numpy(theirs), tuple(ours.shape)
        ours.assign(value if value.shape == shape else _widened(value, shape))


def _widened(dense: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A dense layer's (instants·filters, classes) for more instants, its sum over instants kept."""
    # Instants lie one after another: whatever divides both lengths begins with the same filter.
    block = math.gcd(dense.shape[0], shape[0])
    before = dense.reshape(-1, block, dense.shape[1])
    after = shape[0] // block
    return np.tile(before.mean(0), (after, 1)) * (len(before) / after)


def _restore(checkpoint: Path, settings: TrainSettings, steps: int) -> tuple[keras.Model, int]:
    """The network of a checkpoint, compiled, with its optimiser's state; its steps so far.

    Nothing but numbers is taken over: a stored optimiser forgets what it must not decay.

    Raises:
        StoreError: it is damaged, or of another network.
    """
    import keras

    try:
        stored = keras.saving.load_model(checkpoint, safe_mode=True)
        model = _build(settings, stored.input_shape[1], steps, settings.precision)
        pairs = zip(model.weights, stored.weights, strict=True)
        if any(a.shape != b.shape for a, b in pairs):
            raise ValueError("other shapes")
        _take_over(model, stored)
    except Exception as error:  # Keras raises many kinds on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise StoreError(
            f"{checkpoint}: cannot be resumed from, delete it to start again ({reason})"
        ) from None
    return model, int(model.optimizer.iterations)


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Start every random layer anew, so that an epoch does not depend on the process it is in."""
    for number, layer in enumerate(model.layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            words = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
            # Keras keeps PyTorch's and TensorFlow's states in types that hold 31 bits at least.
            generator.state.assign(words >> 1)


@backend.keras_defaults(layout=True)
def train(
    records: RecordSet,
    settings: TrainSettings,
    folder: Path,
    *,
    command: str = "",
    labels_version: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a network and score it on the held-out part.

    A checkpoint is written atomically after every epoch; the same call on the same folder goes on
    from it. No epoch is selected by its held-out score: the last one is what is scored.

    Args:
        records: labelled records.
        settings: see :class:`TrainSettings`.
        folder: receives ``checkpoint.keras`` and ``history.json``.
        command: for the model card.
        labels_version: of the records' labels, for the card.
        progress: called after every epoch with its row of the history.
    """
    import keras

    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(settings.seed)
    train_rows, held_rows = split_indices(records, settings)
    truth = np.array([CLASSES.index(c) for c in records.labels], dtype=np.int64)
    counts = np.bincount(truth[train_rows], minlength=len(CLASSES))
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -settings.class_weight, 0.0)
    weights = weights * counts.sum() / (weights * counts).sum()
    steps = max(1, len(train_rows) // settings.batch_size)

    checkpoint, log = folder / "checkpoint.keras", folder / "history.json"
    history: list[dict[str, Any]] = []
    done = 0
    if checkpoint.is_file():
        model, iterations = _restore(checkpoint, settings, steps)
        done = iterations // steps
        history = json.loads(log.read_text(encoding="utf-8"))[:done] if log.is_file() else []
    else:
        model = _build(settings, settings.samples(0), steps, settings.precision)

    held = records.batch(held_rows)
    signals = [records[int(i)].signal for i in range(len(records))]
    for epoch in range(done, settings.epochs):
        n = settings.samples(epoch)
        if model.input_shape[1] != n:
            earlier, model = model, _build(settings, n, steps, settings.precision)
            _take_over(model, earlier)
        started = time.perf_counter()
        rng = np.random.default_rng([settings.seed, epoch])
        _seed_dropout(model, settings.seed, epoch)
        order = rng.permutation(train_rows)
        losses = []
        for step in range(steps):
            rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
            x = np.stack([augment(signals[i], rng, n) for i in rows])[..., None]
            y = truth[rows]
            losses.append(float(model.train_on_batch(x, y, sample_weight=weights[y])))
        confusion = _confusion(model, _begun(held, n), truth[held_rows])
        row = {
            "epoch": epoch + 1,
            "loss": round(float(np.mean(losses)), 5),
            "heldout_f1_nao_mean": scores.summary(confusion)["f1_nao_mean"],
            "samples": n,
            "seconds": round(time.perf_counter() - started, 1),
        }
        history.append(row)
        # The log comes first: rows beyond the checkpoint are dropped, missing ones were lost.
        scratch = log.with_suffix(".partial")
        scratch.write_text(json.dumps(history, indent=1), encoding="utf-8")
        os.replace(scratch, log)
        _save(model, checkpoint)
        if progress:
            progress(row)

    if settings.precision != "float32":
        # A victim answers in float32, whatever arithmetic its training had.
        trained, model = model, _build(settings, N_SAMPLES, steps, "float32")
        model.set_weights(trained.get_weights())
    confusion = _confusion(model, held.x, truth[held_rows])
    card = {
        "architecture": settings.architecture,
        "parameters": int(model.count_params()),
        "classes": list(CLASSES),
        "fs": records.fs,
        "n_samples": N_SAMPLES,
        "data": {
            "name": records.name,
            "digest": records.digest,
            "labels_version": labels_version,
            "n_train": len(train_rows),
            "n_heldout": len(held_rows),
            "split_seed": settings.split_seed,
            "folds": settings.folds,
            "fold": settings.fold,
            "heldout": [records.ids[i] for i in held_rows],
        },
        "settings": asdict(settings),
        "epochs_done": settings.epochs,
        "selection": "last epoch; the held-out part chose nothing",
        "heldout_scores": scores.summary(confusion),
        "history": history,
        "command": command,
        "keras": keras.__version__,
    }
    return Trained(model, card, history)


def _begun(held: Batch, n: int) -> np.ndarray:
    """The first ``n`` samples of recordings, standardised anew if these are not all."""
    if n == held.x.shape[1]:
        return held.x
    return standardise_array(held.x[:, :n], np.minimum(held.lengths, n)).astype(np.float32)


def _confusion(model: keras.Model, x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    blocks = [x[i : i + 64, :, None] for i in range(0, len(x), 64)]
    logits = [np.asarray(model.predict_on_batch(block)) for block in blocks]
    predicted = np.concatenate(logits).argmax(1)
    return scores.confusion_matrix(truth, predicted, len(CLASSES))
