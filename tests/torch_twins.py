"""Twins of PyTorch networks of many forms, tried one by one; run by test_twin.py.

Prints a JSON object: for each name how far logits and gradient are from the victim's own, how many
batch normalisations are left and should be, and whether the module is as it was.
"""

import copy
import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
from torch import nn

import ecgadv
from ecgadv.victims.loading import load_victim
from ecgadv.victims.preflight import reference
from ecgadv.victims.twin import twin_of

N = 120


def norm(channels=6, kind=nn.BatchNorm1d, **options):
    made = kind(channels, **options)
    rng = np.random.default_rng(channels)
    for name, low, high in (
        ("weight", 0.5, 1.5), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 0.2, 2),
    ):  # fmt: skip
        if getattr(made, name) is not None:
            getattr(made, name).data = torch.tensor(rng.uniform(low, high, channels)).float()
    return made


def net(*body, features=6):
    torch.manual_seed(0)
    return nn.Sequential(*body, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(features, 4))


def conv(before=1, filters=6, **options):
    return nn.Conv1d(before, filters, 9, **options)


class Block(nn.Module):
    """A residual block; ``shared`` normalises both branches by one module."""

    def __init__(self, shared=False):
        super().__init__()
        self.one, self.two = conv(), conv()
        self.first = norm()
        self.second = self.first if shared else norm()

    def forward(self, x):
        return torch.relu(self.first(self.one(x)) + self.second(self.two(-x)))


class Taken(nn.Module):
    """A convolution whose answer is taken twice."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = conv(), norm()

    def forward(self, x):
        y = self.one(x)
        return y + self.norm(y)


class Twice(nn.Module):
    """A convolution that is called twice."""

    def __init__(self):
        super().__init__()
        self.one, self.first, self.second = conv(), norm(), norm()

    def forward(self, x):
        return self.first(self.one(x)) + self.second(self.one(-x))


class Depends(nn.Module):
    """Goes a way that depends on values, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.net = net(conv(), norm())

    def forward(self, x):
        return self.net(x) if x.abs().sum() >= 0 else -self.net(x)


FORMS = {
    "conv, norm, relu": (net(conv(), norm(), nn.ReLU()), 0),
    "without bias": (net(conv(bias=False, padding=4), norm(), nn.ReLU()), 0),
    "groups": (net(conv(), nn.Conv1d(6, 6, 5, groups=3), norm()), 0),
    "transposed": (net(nn.ConvTranspose1d(1, 6, 4), norm()), 0),
    "transposed, groups": (net(conv(), nn.ConvTranspose1d(6, 6, 4, groups=2), norm()), 1),
    "dropout between": (net(conv(), nn.Dropout(), nn.Identity(), norm()), 0),
    "norm, norm": (net(conv(), norm(), norm()), 0),
    "not affine": (net(conv(), norm(affine=False)), 0),
    "linear": (nn.Sequential(net(conv()), nn.Linear(4, 8), norm(8), nn.ReLU(), nn.Linear(8, 4)), 0),
    "before the convolution": (net(norm(1), conv()), 1),
    "residual": (net(Block(), nn.ReLU()), 0),
    "shared normalisation": (net(Block(shared=True)), 1),
    "answer taken twice": (net(Taken()), 1),
    "convolution called twice": (net(Twice()), 2),
    "way depends on values": (Depends(), 1),
    "scripted": (torch.jit.script(net(conv(), norm(), nn.ReLU()).eval()), 0),
    "nothing to fold": (net(conv()), 0),
}
NOTED = ("way depends on values",)


def left(victim):
    network = victim.network
    if isinstance(network, torch.jit.ScriptModule):
        return str(network.inlined_graph).count("aten::batch_norm")
    return sum(isinstance(part, nn.BatchNorm1d) for part in network.modules())


def main():
    said = {}
    for name, (module, wanted) in FORMS.items():
        module.eval()
        state = {key: value.clone() for key, value in module.state_dict().items()}
        x = torch.randn(2, 1, N)
        before = module(x).detach().clone()
        victim = load_victim(module, n=N, channels="first", check=False)
        twin = twin_of(victim)
        own, other = reference(victim), reference(twin)
        same = all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        said[name] = {
            "logits": float(np.abs(own.logits - other.logits).max()),
            "gradient": float(
                np.abs(own.gradient - other.gradient).max() / np.abs(own.gradient).max()
            ),
            "left": left(twin),
            "wanted": wanted,
            "untouched": same and torch.equal(module(x), before) and not module.training,
            "note": " ".join(note for note in victim.notes if "twin" in note),
            "noted": name in NOTED,
        }
    victim = load_victim(copy.deepcopy(FORMS["residual"][0]), n=N, channels="first")
    found = ecgadv.attack(victim, reference(victim).x, steps=3)
    assert found.n_gradients.tolist() == [3] * len(found.delta)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
