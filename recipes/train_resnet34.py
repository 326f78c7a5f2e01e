"""Train the 34-layer network on a CPU, its convolutions computed in the frequency domain.

    python recipes/train_resnet34.py outputs/resnet34 data=cinc2017 data.root=training2017.zip

Needs PyTorch. A convolution of 16 taps costs 16 products an output and pair of channels; cut into
overlapping tiles of 64 samples and done as complex products of their spectra (overlap-save, any
textbook on digital signal processing) it costs 2.7 and the transforms. The result is the same
convolution, so what comes out is the ordinary Keras network.

The stages of the training see crops of growing length. The last layer is tied over time while it is
trained: it sees the mean over all instants, which the network's flattening layer with the same
weights at every instant computes too. The targets are the labels mixed with the answers of the
included compact victim to the same crop, whose training saw the same records and no held-out one.
The folder gets ``victim.keras`` and ``victim.json``, for ``recipes/ship_victim.py``; a training
that was stopped goes on at the epoch that it was in.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import math
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ecgadv.config import compose_checked
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.tasks.common import open_records
from ecgadv.victims import scores
from ecgadv.victims.architectures import RESNET34_FILTERS, build
from ecgadv.victims.loading import load_victim
from ecgadv.victims.training import TrainSettings, augment, split_indices

TAPS = 16
BEFORE = (TAPS - 1) // 2
AVERAGE_EVERY = 4
"""Steps from one update of the mean of weights to the next."""
SCORED_FROM = 3072
"""Samples of a crop from which an epoch ends with scores on the held-out records."""


class Plan(nn.Module):
    """Constants of overlap-save with real Fourier bases of ``size`` samples; ``step`` are kept."""

    def __init__(self, size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.size, self.step, self.half = size, size - TAPS, size // 2
        self.half_precision = False
        n, f, j = np.arange(size), np.arange(1, size // 2), np.arange(TAPS)
        basis = np.zeros((size, size))
        basis[0], basis[1] = 1 / math.sqrt(size), (-1.0) ** n / math.sqrt(size)
        basis[2::2] = np.cos(2 * np.pi * np.outer(f, n) / size) * math.sqrt(2 / size)
        basis[3::2] = -np.sin(2 * np.pi * np.outer(f, n) / size) * math.sqrt(2 / size)
        # (half, 2, 2, taps): from a kernel to the matrix that multiplies (real, imaginary) parts.
        turn = np.zeros((size // 2, 2, 2, TAPS))
        cos, sin = (g(2 * np.pi * np.outer(f, j) / size) for g in (np.cos, np.sin))
        turn[1:, 0, 0], turn[1:, 0, 1], turn[1:, 1, 0], turn[1:, 1, 1] = cos, sin, -sin, cos
        turn[0, 0, 0], turn[0, 1, 1] = 1.0, (-1.0) ** j
        self.register_buffer("forwards", torch.tensor(basis, dtype=dtype))
        back = torch.tensor(basis[:, : self.step].T.copy(), dtype=dtype)
        self.register_buffer("backwards", back)
        self.register_buffer("turn", torch.tensor(turn.reshape(-1, TAPS), dtype=dtype))

    def spectrum(self, kernel: torch.Tensor) -> torch.Tensor:
        """(half, 2·in, 2·out) of a kernel (taps, in, out)."""
        _, ins, outs = kernel.shape
        flat = (self.turn @ kernel.reshape(TAPS, -1)).view(self.half, 2, 2, ins, outs)
        return flat.permute(0, 1, 3, 2, 4).reshape(self.half, 2 * ins, 2 * outs)


class Tiled(torch.autograd.Function):
    """Correlation of (B, T·step, C) with a kernel given by its spectrum, zeros around.

    What lies between ``x`` and the result, both of one precision, has that of the spectrum.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, spectrum: torch.Tensor, plan: Plan) -> torch.Tensor:
        size, step, half = plan.size, plan.step, plan.half
        batch, length, ins = x.shape
        count, outs = length // step, spectrum.shape[2] // 2
        blocks = x.view(batch, count, step, ins)
        tiles = x.new_empty(batch, count, size, ins, dtype=spectrum.dtype)
        after = TAPS - BEFORE
        tiles[:, :, BEFORE : BEFORE + step] = blocks
        tiles[:, 0, :BEFORE] = 0
        tiles[:, -1, size - after :] = 0
        tiles[:, 1:, :BEFORE] = blocks[:, :-1, step - BEFORE :]
        tiles[:, :-1, size - after :] = blocks[:, 1:, :after]
        total = batch * count
        seen = torch.matmul(plan.forwards.to(spectrum.dtype), tiles.view(total, size, ins))
        seen = seen.view(total, half, 2 * ins).transpose(0, 1).contiguous()
        product = torch.bmm(seen, spectrum).transpose(0, 1).reshape(total, size, outs)
        ctx.save_for_backward(seen, spectrum)
        ctx.plan, ctx.shape = plan, (batch, count)
        y = torch.matmul(plan.backwards.to(spectrum.dtype), product).view(batch, length, outs)
        return y.to(x.dtype)

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        seen, spectrum = ctx.saved_tensors
        plan, (batch, count) = ctx.plan, ctx.shape
        size, step, half = plan.size, plan.step, plan.half
        total, outs, ins = batch * count, spectrum.shape[2] // 2, spectrum.shape[1] // 2
        blocks = gradient.to(spectrum.dtype).contiguous().view(total, step, outs)
        back = torch.matmul(plan.backwards.T.to(spectrum.dtype), blocks)
        back = back.view(total, half, 2 * outs).transpose(0, 1).contiguous()
        of_spectrum = torch.bmm(seen.transpose(1, 2), back) if ctx.needs_input_grad[1] else None
        product = torch.bmm(back, spectrum.transpose(1, 2)).transpose(0, 1)
        basis = plan.forwards.T.to(spectrum.dtype)
        tiles = torch.matmul(basis, product.reshape(total, size, ins))
        tiles = tiles.view(batch, count, size, ins).to(gradient.dtype)
        after = TAPS - BEFORE
        of_x = tiles[:, :, BEFORE : BEFORE + step].contiguous()
        of_x[:, :-1, step - BEFORE :] += tiles[:, 1:, :BEFORE]
        of_x[:, 1:, :after] += tiles[:, :-1, size - after :]
        return of_x.view(batch, count * step, ins), of_spectrum, None


class Halved(torch.autograd.Function):
    """Maximum of neighbours, (B, L, C) to (B, L // 2, C)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[1] // 2
        first, second = x[:, : 2 * half : 2], x[:, 1 : 2 * half : 2]
        wins = first >= second
        ctx.save_for_backward(wins)
        ctx.length = x.shape[1]
        return torch.where(wins, first, second)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (wins,) = ctx.saved_tensors
        batch, half, width = gradient.shape
        make = gradient.new_empty if ctx.length == 2 * half else gradient.new_zeros
        out = make(batch, ctx.length, width)
        pairs = out[:, : 2 * half].unflatten(1, (half, 2))
        torch.mul(gradient, wins, out=pairs[:, :, 0])
        torch.mul(gradient, ~wins, out=pairs[:, :, 1])
        return out


class Convolution(nn.Module):
    """16 taps, zeros around, no bias: a batch normalisation follows that would take it out."""

    def __init__(self, ins: int, outs: int, plan: Plan) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(TAPS, ins, outs) * math.sqrt(2 / (TAPS * ins)))
        self.plan = [plan]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plan, length = self.plan[0], x.shape[1]
        over = -length % plan.step
        if over:
            x = functional.pad(x, (0, 0, 0, over))
        spectrum = plan.spectrum(self.kernel)
        if self.training and plan.half_precision:
            spectrum = spectrum.bfloat16()
        y = Tiled.apply(x, spectrum, plan)
        return y[:, :length] if over else y


class Norm(nn.Module):
    """Batch normalisation as Keras has it, over (B, L)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(width, eps=1e-3, momentum=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.reshape(-1, x.shape[-1])).view(x.shape)


class Network(nn.Module):
    """The layers of ``ecgadv.victims.architectures.resnet34``, the last one tied over time."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        wide, narrow = Plan(64), Plan(32)
        self.plans = nn.ModuleList([wide, narrow])
        self.dropout = dropout
        width = RESNET34_FILTERS[0]
        self.stem = nn.Parameter(torch.randn(TAPS, width) * math.sqrt(2 / TAPS))
        self.first = Norm(width)
        self.blocks = nn.ModuleList()
        for number, filters in enumerate(RESNET34_FILTERS, 1):
            plan = wide if filters < 256 else narrow
            block = nn.ModuleDict()
            if filters != width:
                block["shortcut"] = nn.Linear(width, filters, bias=False)
                nn.init.kaiming_normal_(block["shortcut"].weight)
            if number > 1:
                block["before"] = Norm(width)
            block["one"] = Convolution(width, filters, plan)
            block["between"] = Norm(filters)
            block["two"] = Convolution(filters, filters, plan)
            self.blocks.append(block)
            width = filters
        self.last = Norm(width)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 4) of signals (B, n)."""
        x = functional.pad(x, (BEFORE, TAPS - 1 - BEFORE)).unfold(1, TAPS, 1) @ self.stem
        x = functional.relu(self.first(x))
        for number, block in enumerate(self.blocks, 1):
            shortcut = block["shortcut"](x) if "shortcut" in block else x
            y = functional.relu(block["before"](x)) if "before" in block else x
            y = functional.relu(block["between"](block["one"](y)))
            if self.training and self.dropout:
                keep = torch.rand(len(y), 1, y.shape[2]) >= self.dropout
                y = y * (keep / (1 - self.dropout))
            y = block["two"](y)
            if number % 2:
                y, shortcut = Halved.apply(y), Halved.apply(shortcut)
            x = y + shortcut
        return self.head(functional.relu(self.last(x)).mean(1))


def twins(network: Network, model: Any) -> list[tuple[Any, list[torch.Tensor]]]:
    """Layers of the Keras model and the tensors of the network that they hold."""

    def made(kind: str) -> list[Any]:
        layers = [layer for layer in model.layers if type(layer).__name__ == kind]
        return sorted(layers, key=_number)

    kernels: list[torch.Tensor] = [network.stem[:, None]]
    norms = [network.first]
    for block in network.blocks:
        if "shortcut" in block:
            kernels.append(block["shortcut"].weight.T[None])
        if "before" in block:
            norms.append(block["before"])
        kernels += [block["one"].kernel, block["two"].kernel]
        norms.append(block["between"])
    norms.append(network.last)
    pairs = list(zip(made("Conv1D"), ([kernel] for kernel in kernels), strict=True))
    for layer, norm in zip(made("BatchNormalization"), norms, strict=True):
        inner = norm.inner
        pairs.append((layer, [inner.weight, inner.bias, inner.running_mean, inner.running_var]))
    return pairs


def to_keras(network: Network) -> Any:
    """The same network as a Keras model for whole recordings."""
    model = build("resnet34")
    for layer, tensors in twins(network, model):
        values = [tensor.detach().numpy() for tensor in tensors]
        # Convolutions have a bias there.
        layer.set_weights(values if len(values) > 1 else [*values, 0 * values[0][0, 0]])
    dense = model.get_layer("logits")
    instants = dense.kernel.shape[0] // network.head.in_features
    kernel = np.tile(network.head.weight.detach().numpy().T / instants, (instants, 1))
    dense.set_weights([kernel, network.head.bias.detach().numpy()])
    return model


def from_keras(network: Network, model: Any) -> None:
    """Take over the weights of such a model; what its last layer has at each instant is summed."""
    with torch.no_grad():
        for layer, tensors in twins(network, model):
            values = layer.get_weights()
            for tensor, value in zip(tensors, values, strict=False):
                tensor.copy_(torch.from_numpy(value))
            if len(tensors) == 1 and values[-1].any():
                raise SystemExit("its convolutions have a bias: not a network of this script")
        kernel, bias = (
            torch.from_numpy(value) for value in model.get_layer("logits").get_weights()
        )
        network.head.weight.copy_(kernel.view(-1, network.head.in_features, len(bias)).sum(0).T)
        network.head.bias.copy_(bias)


class Deployed(nn.Module):
    """A trained network as a victim of ``victim=torch``: (B, n, 1) to logits, nothing to train."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = Network(0.0)
        from_keras(self.network, model)
        self.network.requires_grad_(False)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 4)."""
        return self.network(x[..., 0])


def _number(layer: Any) -> int:
    tail = layer.name.rpartition("_")[2]
    return int(tail) if tail.isdigit() else 0


def stages(text: str) -> list[int]:
    """Samples of every epoch, from ``5x1536,1x9000`` (epochs x samples)."""
    pairs = [part.split("x") for part in text.split(",")]
    return [int(samples) for epochs, samples in pairs for _ in range(int(epochs))]


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and running statistics by name, not copied."""
    skip = ("plans.", "num_batches_tracked")
    state = module.state_dict().items()
    return {k: v.numpy() for k, v in state if not any(s in k for s in skip)}


def answers(network: Network, x: np.ndarray) -> np.ndarray:
    """Logits of (B, n) signals, without gradients."""
    network.eval()
    with torch.no_grad():
        parts = [network(torch.from_numpy(x[i : i + 32])) for i in range(0, len(x), 32)]
    network.train()
    return torch.cat(parts).numpy()


def best_offsets(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(classes,) shifts of logits that give the best N/A/O mean F1 on the records given.

    Training with weighted classes favours rare ones. Coordinate search in steps from 0.8 to 0.05.
    """

    def f1(offsets: np.ndarray) -> float:
        said = (logits + offsets).argmax(1)
        confusion = scores.confusion_matrix(truth, said, len(CLASSES))
        return float(scores.summary(confusion)["f1_nao_mean"])  # type: ignore[arg-type]

    best = np.zeros(len(CLASSES), np.float32)
    for size in (0.8, 0.4, 0.2, 0.1, 0.05):
        moves = [s * size * row for row in np.eye(len(CLASSES), dtype=np.float32) for s in (1, -1)]
        improved = True
        while improved:
            found = max((best + move for move in moves), key=f1)
            improved = f1(found) > f1(best)
            best = found if improved else best
    return best


class Training:
    """A training and its state; everything that a checkpoint holds."""

    def __init__(self, records: RecordSet, given: argparse.Namespace) -> None:
        self.given, self.settings = given, TrainSettings(architecture="resnet34")
        train, held = split_indices(records, self.settings)
        self.train, self.held = train, records.batch(held).x
        self.ids = [records.ids[i] for i in held]
        truth = np.array([CLASSES.index(c) if c in CLASSES else -1 for c in records.labels])
        self.truth, self.held_truth = truth, truth[held]
        self.signals = [records[int(i)].signal for i in range(len(records))]
        counts = np.maximum(np.bincount(truth[train], minlength=len(CLASSES)), 1)
        weights = counts**-self.settings.class_weight
        weights = weights * counts.sum() / (weights * counts).sum()
        self.weights = torch.tensor(weights, dtype=torch.float32)
        self.teacher = load_victim("compact") if given.teacher else None
        taught = self.teacher.card["data"] if self.teacher else {}
        if taught.get("name") == records.name and taught["heldout"] != self.ids:
            raise SystemExit("the teacher has learnt from records that are held out here")
        self.lengths = stages(given.stages)
        self.steps = max(1, len(train) // given.batch)
        torch.manual_seed(self.settings.seed)
        self.network, self.mean = Network(given.dropout), Network(0.0)
        self.before: dict[str, Any] | None = None
        if given.begin:
            first = load_victim(given.begin)
            from_keras(self.network, first.model)
            told = {key: first.card.get(key) for key in ("command", "epochs_done", "note")}
            self.before = {"sha256": first.sha256} | told
        for plan in self.network.plans:
            plan.half_precision = given.precision == "bfloat16"
        decays = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim < 2]
        self.parameters = [*decays, *others]
        groups = [{"params": decays}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            groups, lr=given.rate, weight_decay=given.decay, fused=True
        )
        self.average = {k: v.copy() for k, v in numbers(self.network).items()}
        self.history: list[dict[str, Any]] = []
        self.checkpoint = given.folder / "checkpoint.npz"

    def restore(self) -> None:
        """Go on from the checkpoint."""
        with np.load(self.checkpoint, allow_pickle=False) as stored:
            self.history = json.loads(str(stored["history"]))
            self.average = {k: stored[f"average/{k}"] for k in self.average}
            state = {k: torch.from_numpy(stored[f"now/{k}"]) for k in self.average}
            self.network.load_state_dict(state, strict=False)
            for i, parameter in enumerate(self.parameters):
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(len(self.history) * self.steps)),
                    "exp_avg": torch.from_numpy(stored[f"first/{i}"]),
                    "exp_avg_sq": torch.from_numpy(stored[f"second/{i}"]),
                }

    def save(self) -> None:
        """Write the checkpoint, at once or not at all."""
        arrays = {f"now/{k}": v for k, v in numbers(self.network).items()}
        arrays |= {f"average/{k}": v for k, v in self.average.items()}
        for i, parameter in enumerate(self.parameters):
            state = self.optimizer.state[parameter]
            arrays |= {f"first/{i}": state["exp_avg"], f"second/{i}": state["exp_avg_sq"]}
        scratch = self.checkpoint.with_name(".partial.npz")
        np.savez(scratch, allow_pickle=False, history=json.dumps(self.history), **arrays)
        os.replace(scratch, self.checkpoint)

    def averaged(self) -> Network:
        """The network with the mean of the latest weights."""
        state = {k: torch.from_numpy(v) for k, v in self.average.items()}
        self.mean.load_state_dict(state, strict=False)
        return self.mean

    def scores(self, network: Network, n: int) -> dict[str, Any]:
        """What a network makes of the first ``n`` samples of the held-out records."""
        said = answers(network, np.ascontiguousarray(self.held[:, :n])).argmax(1)
        return scores.summary(scores.confusion_matrix(self.held_truth, said, len(CLASSES)))

    def wanted(self, x: np.ndarray, truth: torch.Tensor, tutor: Any) -> torch.Tensor:
        """(B, classes) targets: labels, mixed with the teacher's answers to the same crop."""
        labels = functional.one_hot(truth, len(CLASSES)).float()
        if tutor is None:
            return labels
        with torch.no_grad():
            says = torch.softmax(tutor(torch.from_numpy(x)[..., None], training=False), 1)
        return (1 - self.given.teacher) * labels + self.given.teacher * says

    def epoch(self) -> dict[str, Any]:
        """One pass over the training records."""
        number, started, losses = len(self.history), time.perf_counter(), []
        n, batch = self.lengths[number], self.given.batch
        rng = np.random.default_rng([self.settings.seed, number])
        torch.manual_seed(number)
        tutor = None
        if self.teacher:
            tutor = build("compact", n)
            tutor.set_weights(self.teacher.model.get_weights())
        order = rng.permutation(self.train)
        for step in range(self.steps):
            done = number * self.steps + step
            left = 1 - done / (self.steps * len(self.lengths))
            for group in self.optimizer.param_groups:
                group["lr"] = self.given.rate * min(1.0, (done + 1) / self.steps) * left
            rows = order[step * batch : (step + 1) * batch]
            x = np.stack([augment(self.signals[i], rng, n) for i in rows])
            truth = torch.from_numpy(self.truth[rows])
            wanted = self.wanted(x, truth, tutor)
            told = torch.log_softmax(self.network(torch.from_numpy(x)), 1)
            loss = -((wanted * told).sum(1) * self.weights[truth]).mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimizer.step()
            losses.append(loss.item())
            if step % AVERAGE_EVERY == AVERAGE_EVERY - 1:
                keep = min(self.given.average, (done + 1) / (done + 10)) ** AVERAGE_EVERY
                for name, value in numbers(self.network).items():
                    torch.from_numpy(self.average[name]).lerp_(torch.from_numpy(value), 1 - keep)
            if step % 20 == 0:
                each = (time.perf_counter() - started) / (step + 1) / batch
                print(
                    f"epoch {number + 1}/{len(self.lengths)}, {n} samples, step {step}/"
                    f"{self.steps}: loss {np.mean(losses[-20:]):.4f}, {each:.4f} s a record",
                    flush=True,
                )
        # Short crops say little of whole recordings.
        found = self.scores(self.averaged(), n)["f1_nao_mean"] if n >= SCORED_FROM else None
        return {
            "epoch": number + 1,
            "loss": round(float(np.mean(losses)), 5),
            "heldout_f1_nao_mean": found,
            "samples": n,
            "seconds": round(time.perf_counter() - started, 1),
        }

    def card(self, records: RecordSet, parameters: int, offsets: np.ndarray) -> dict[str, Any]:
        """The model card, as ``task=train`` writes it, of the averaged network."""
        given = vars(self.given)
        own = ("begin", "stages", "batch", "rate", "decay", "dropout", "teacher", "average")
        settings = {key: given[key] for key in (*own, "precision")}
        split = dataclasses.asdict(self.settings)
        return {
            "architecture": "resnet34",
            "parameters": parameters,
            "classes": list(CLASSES),
            "fs": records.fs,
            "n_samples": self.held.shape[1],
            "data": {
                "name": records.name,
                "digest": records.digest,
                "n_train": len(self.train),
                "n_heldout": len(self.ids),
                **{key: split[key] for key in ("split_seed", "folds", "fold")},
                "heldout": self.ids,
            },
            "settings": settings,
            "before": self.before,
            "epochs_done": len(self.history),
            "selection": "mean of the latest weights after the last epoch, offsets of the classes "
            "by the training records; the held-out part chose nothing",
            "teacher": "compact" if self.teacher else None,
            "offsets": [round(float(value), 3) for value in offsets],
            "heldout_scores": self.scores(self.mean, self.held.shape[1]),
            "history": self.history,
            "command": "python " + shlex.join(sys.argv),
            "torch": torch.__version__,
        }


def keep_memory() -> None:
    """Let glibc keep what is freed: mapped anew for each tensor, it costs a third of the time."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: give nothing back
        libc.mallopt(-4, 0)  # M_MMAP_MAX: map nothing apart


def main(argv: list[str]) -> int:
    """Train, or go on training, and write the Keras network with its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", nargs="*", help="where the data are, as for run.py")
    parser.add_argument("--stages", default="5x1536,6x3072,1x9000", help="epochs x samples, …")
    parser.add_argument(
        "--begin", help="a trained victim to go on from: resnet34, or a .keras file"
    )
    parser.add_argument("--batch", type=int, default=32, help="records a step")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak; it falls linearly to 0")
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay of AdamW")
    parser.add_argument("--dropout", type=float, default=0.1, help="of whole filters")
    parser.add_argument("--teacher", type=float, default=0.5, help="share of compact's answers")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the products of spectra while training; bfloat16 where the CPU has it",
    )
    parser.add_argument("--average", type=float, default=0.995, help="decay of the mean of weights")
    given = parser.parse_intermixed_args(argv)
    keep_memory()
    records = open_records(compose_checked(given.options).jobs[0].config)
    given.folder.mkdir(parents=True, exist_ok=True)
    training = Training(records, given)
    if training.checkpoint.is_file():
        training.restore()
    while len(training.history) < len(training.lengths):
        row = training.epoch()
        training.history.append(row)
        training.save()
        print(row, flush=True)
    network = training.averaged()
    seen = training.train
    blocks = [records.batch(seen[i : i + 256]).x for i in range(0, len(seen), 256)]
    logits = np.concatenate([answers(network, block) for block in blocks])
    offsets = best_offsets(logits, training.truth[seen])
    with torch.no_grad():
        network.head.bias += torch.from_numpy(offsets)
    model = to_keras(network)
    some = training.held[:64]
    apart = np.abs(np.asarray(model.predict_on_batch(some[..., None])) - answers(network, some))
    if apart.max() > 1e-3:
        raise SystemExit(f"the Keras network answers otherwise, by {apart.max():.2g}")
    card = training.card(records, int(model.count_params()), offsets)
    model.save(given.folder / "victim.keras")
    (given.folder / "victim.json").write_text(json.dumps(card, indent=1))
    print(json.dumps(card["heldout_scores"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
