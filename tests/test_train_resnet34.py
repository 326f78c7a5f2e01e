"""Training in the frequency domain: the same convolution, the same network."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPO, environment

from ecgadv.victims.loading import load_victim

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
]

CONVOLUTION = """
import json, sys
sys.path.insert(0, "recipes")
import torch
import train_resnet34 as T
F = torch.nn.functional
torch.manual_seed(0)
apart = {}
for size, length, ins, outs in ((64, 480, 5, 7), (64, 131, 3, 2), (32, 160, 4, 4), (32, 9, 2, 3)):
    own = T.Convolution(ins, outs, T.Plan(size, torch.float64)).double()
    x = torch.randn(3, length, ins, dtype=torch.float64, requires_grad=True)
    weights = own.kernel.permute(2, 1, 0)
    plain = F.conv1d(F.pad(x, (0, 0, 7, 8)).transpose(1, 2), weights).transpose(1, 2)
    found = own(x)
    cotangent = torch.randn_like(plain)
    mine = torch.autograd.grad((found * cotangent).sum(), [x, own.kernel])
    theirs = torch.autograd.grad((plain * cotangent).sum(), [x, own.kernel])
    pairs = [(found, plain), *zip(mine, theirs)]
    apart[f"{size} {length}"] = max(float((a - b).abs().max()) for a, b in pairs)
coarse = {}
own = T.Convolution(6, 8, T.Plan(64))
x = torch.randn(3, 300, 6, requires_grad=True)
cotangent = torch.randn(3, 300, 8)
for half in (False, True):
    own.plan[0].half_precision = half
    y = own(x)
    coarse[half] = [y, *torch.autograd.grad((y * cotangent).sum(), [x, own.kernel])]
    assert all(part.dtype == torch.float32 for part in coarse[half])
pairs = list(zip(coarse[True], coarse[False]))
bfloat16 = [float((a - b).norm() / b.norm()) for a, b in pairs]
own.eval()
assert torch.equal(own(x), coarse[False][0]), "answers are always in float32"
for length in (8, 9):
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    found, plain = T.Halved.apply(x), F.max_pool1d(x.transpose(1, 2), 2).transpose(1, 2)
    cotangent = torch.randn_like(plain)
    mine, theirs = (torch.autograd.grad((y * cotangent).sum(), x)[0] for y in (found, plain))
    apart[f"halved {length}"] = max(
        float((a - b).abs().max()) for a, b in ((found, plain), (mine, theirs))
    )
print(json.dumps({"exact": apart, "bfloat16": bfloat16}))
"""


THERE_AND_BACK = """
import json, sys
sys.path.insert(0, "recipes")
import numpy as np, torch
import train_resnet34 as T
torch.manual_seed(0)
network, other = T.Network(0.0), T.Network(0.0)
for value in T.numbers(network).values():
    value += np.random.default_rng(len(value)).uniform(0.01, 0.02, value.shape).astype("float32")
T.from_keras(other, T.to_keras(network))
mine, theirs = T.numbers(network), T.numbers(other)
apart = {k: float(np.abs(mine[k] - theirs[k]).max()) for k in mine}
x = np.random.default_rng(0).normal(size=(2, 9000)).astype("float32")
plain = np.asarray(T.to_keras(network).predict_on_batch(x[..., None]))
apart["answers"] = float(np.abs(plain - T.answers(network, x)).max() / np.abs(plain).max())
print(json.dumps(apart))
"""


def call(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=900, cwd=REPO,
        env=environment(KERAS_BACKEND="torch"), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_tiles_of_spectra_are_the_plain_convolution_and_so_are_their_gradients():
    found = json.loads(call("-c", CONVOLUTION).splitlines()[-1])
    assert len(found["exact"]) == 6
    assert max(found["exact"].values()) < 1e-11, found
    # Eight bits of mantissa, rounded three times on the way.
    assert 1e-4 < min(found["bfloat16"]) <= max(found["bfloat16"]) < 1e-2, found


def test_the_keras_network_is_the_same_and_can_be_gone_on_from():
    apart = json.loads(call("-c", THERE_AND_BACK).splitlines()[-1])
    assert len(apart) > 100
    assert max(apart.values()) < 1e-5, apart


def test_the_offsets_are_those_that_read_best():
    logits = np.array([[2.0, 1.5, 0, 0], [3.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 3.0, 0]])
    found = call(
        "-c",
        "import json, sys; sys.path.insert(0, 'recipes'); import numpy as np; "
        "import train_resnet34 as T; "
        f"print(json.dumps(T.best_offsets(np.array({logits.tolist()}), "
        "np.array([1, 0, 1, 2])).tolist()))",
    )
    offsets = np.array(json.loads(found.splitlines()[-1]))
    assert (logits + offsets).argmax(1).tolist() == [1, 0, 1, 2]


def test_a_training_goes_on_from_its_checkpoint_and_ends_in_a_keras_network(tmp_path):
    def train(folder: str, stages: str) -> str:
        return call(
            "recipes/train_resnet34.py", str(tmp_path / folder), "--stages", stages, "--batch",
            "16", "data=synthetic", "data.per_class=10",
        )  # fmt: skip

    train("broken", "1x480")
    # The same training, one epoch longer: what is done is not done again.
    said = train("broken", "1x480,1x960")
    assert "epoch 2/2" in said
    assert "epoch 1/2" not in said
    card = json.loads((tmp_path / "broken" / "victim.json").read_text())
    assert [row["samples"] for row in card["history"]] == [480, 960]
    assert card["data"]["n_train"] + card["data"]["n_heldout"] == 40
    assert card["heldout_scores"]["n"] == card["data"]["n_heldout"] == len(card["data"]["heldout"])
    victim = load_victim(str(tmp_path / "broken" / "victim.keras"))
    assert victim.model.count_params() == card["parameters"] == 13_316_100
    x = np.random.default_rng(0).normal(size=(2, 9000)).astype(np.float32)
    assert np.isfinite(victim.logits(x)).all()
    # The tied last layer: every instant has the same weights.
    kernel = np.asarray(victim.model.layers[-1].kernel).reshape(-1, 256, 4)
    np.testing.assert_array_equal(kernel, np.repeat(kernel[:1], len(kernel), 0))
