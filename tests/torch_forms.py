"""PyTorch networks of many forms, tried one by one; run by test_network_forms.py.

Prints a JSON object: for each name what refused it, or how far its answers are from the module's
own in float32, whether the module is as it was, and how far the victim moved when the module did.
"""

import copy
import json
import os
import threading

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
from torch import nn

from ecgadv.errors import EcgadvError
from ecgadv.victims.loading import load_victim

N = 120
X = np.random.default_rng(0).standard_normal((3, N)).astype(np.float32)
X -= X.mean(1, keepdims=True)
X /= X.std(1, keepdims=True)


def net(*between: nn.Module, end: tuple[nn.Module, ...] = (), leads: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(leads, 8, 9, stride=2), *between, nn.ReLU(), nn.AdaptiveMaxPool1d(1),
        nn.Flatten(), nn.Linear(8, 4), *end,
    )  # fmt: skip


class Around(nn.Module):
    """A network with something done to what it answers or is given."""

    def __init__(self, after=None, before=None, inner=None):
        super().__init__()
        self.net, self.after, self.before = inner or net(), after, before

    def forward(self, x):
        y = self.net(self.before(x) if self.before else x)
        return self.after(y) if self.after else y


class Keeps(Around):
    """Keeps an activation that has a gradient, as tools that explain networks do."""

    def forward(self, x):
        self.last = self.net(x)
        return self.last


class Recurrent(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.out = nn.LSTM(1, 8, batch_first=batch_first), nn.Linear(8, 4)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Autocast(Around):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x).float()


class Locked(Around):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def keeps():
    module = Keeps()
    module(torch.from_numpy(X)[:, None])
    return module


def hooked():
    module = net()
    module.register_forward_hook(lambda module, inputs, output: 2 * output)
    return module


def traced_half():
    return torch.jit.trace(net().half().eval(), torch.zeros(4, 1, N, dtype=torch.float16))


def traced_training():
    module = net(nn.BatchNorm1d(8)).train()
    return torch.jit.trace(module, torch.randn(4, 1, N), check_trace=False)


def exported(free):
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if free else None
    program = torch.export.export(net().eval(), (torch.zeros(4, 1, N),), dynamic_shapes=shapes)
    return program.module()


def quantised():
    return torch.ao.quantization.quantize_dynamic(net().eval(), {nn.Linear}, dtype=torch.qint8)


def attention(y):
    return torch.softmax(y @ y.T, dim=1) @ y


def function():
    module = net().eval()
    return lambda x: module(x)


FIRST = {"channels": "first", "n": N}
LAST = {"n": N}

FORMS = {
    "training mode, dropout and batch normalisation": (
        lambda: net(nn.BatchNorm1d(8), nn.Dropout(0.5)).train(), FIRST),
    "float16": (lambda: net().half(), FIRST),
    "bfloat16": (lambda: net().bfloat16(), FIRST),
    "float64": (lambda: net().double(), FIRST),
    "an activation kept": (keeps, FIRST),
    "weight normalisation": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 4, 9)), nn.AdaptiveMaxPool1d(1),
            nn.Flatten()), FIRST),
    "a hook that changes the output": (hooked, FIRST),
    "function": (function, FIRST),
    "scripted": (lambda: torch.jit.script(net()), FIRST),
    "traced in float16": (traced_half, FIRST),
    "exported, batch free": (lambda: exported(True), FIRST),
    "recurrent, batch first": (lambda: Recurrent(True), LAST),
    "root of a square": (
        lambda: Around(before=lambda x: torch.sqrt(torch.diff(x, dim=2) ** 2)), FIRST),
    "called under the caller's autocast": (lambda: Around(), FIRST),
    "autocast inside": (lambda: Autocast(), FIRST),
    "batch normalisation without running statistics": (
        lambda: net(nn.BatchNorm1d(8, track_running_stats=False)), FIRST),
    "traced in training mode": (traced_training, FIRST),
    "recurrent without batch_first": (lambda: Recurrent(False), LAST),
    "attention over the batch": (lambda: Around(attention), FIRST),
    "exported for one batch size": (lambda: exported(False), FIRST),
    "written for one batch size": (
        lambda: Around(before=lambda x: x.reshape(8, 1, N)), FIRST),
    "squeezed": (lambda: Around(torch.squeeze), FIRST),
    "nn.Sigmoid": (lambda: net(end=(nn.Sigmoid(),)), FIRST),
    "scripted with a sigmoid": (lambda: torch.jit.script(net(end=(nn.Sigmoid(),))), FIRST),
    "softmax": (lambda: net(end=(nn.Softmax(1),)), FIRST),
    "an answer in time": (lambda: nn.Conv1d(1, 28, 9, stride=28), FIRST),
    "tuple": (lambda: Around(lambda y: (y, torch.sigmoid(y))), FIRST),
    "dict": (lambda: Around(lambda y: {"logits": y}), FIRST),
    "array": (lambda: Around(lambda y: y.detach().numpy()), FIRST),
    "channels forgotten": (lambda: net(leads=3), {"n": N, "leads": 3}),
    "scripted, channels forgotten": (
        lambda: torch.jit.script(net(leads=3)), {"n": N, "leads": 3}),
    "length not said": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(N, 4)), {"channels": "first"}),
    "dropout as a function": (lambda: Around(lambda y: nn.functional.dropout(y, 0.5)), FIRST),
    "data parallel": (lambda: nn.DataParallel(net()), FIRST),
    "quantised": (quantised, FIRST),
    "casts its input": (lambda: Around(before=lambda x: x.half()).half(), FIRST),
    "cut off": (lambda: Around(lambda y: y.detach()), FIRST),
    "holds a lock": (lambda: Locked(), FIRST),
}  # fmt: skip


def state(module):
    """All of a module that loading or attacking it might change."""
    if not isinstance(module, nn.Module):
        return None
    return (
        [part.training for part in module.modules()],
        [p.requires_grad for p in module.parameters()],
        [(k, str(v)) for k, v in module.state_dict().items()],
        [len(part._forward_hooks) for part in module.modules() if hasattr(part, "_forward_hooks")],
    )


def plain(module, options):
    """What the module says, in evaluation and float32."""
    x = torch.from_numpy(X)[:, None] if options.get("channels") else torch.from_numpy(X)[..., None]
    twin = module
    if isinstance(module, nn.Module):
        with torch.no_grad():
            if hasattr(module, "last"):
                module.last = module.last.detach()
            twin = copy.deepcopy(module).float()
        if not type(module).__module__.startswith("torch.fx"):
            twin.eval()
    with torch.no_grad():
        return np.asarray(twin(x))


def tried(name, make, options):
    module = make()
    before = state(module)
    try:
        if name == "called under the caller's autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                victim = load_victim(module, **options)
                logits = victim.logits(X)
        else:
            victim = load_victim(module, **options)
            logits = victim.logits(X)
    except EcgadvError as error:
        return {"error": str(error)}
    untouched = state(module) == before
    apart = float(np.abs(logits - plain(module, options)).max())
    if isinstance(module, nn.Module):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1.0)
    after = float(np.abs(victim.logits(X) - logits).max())
    return {
        "error": None, "apart": apart, "untouched": untouched, "after": after,
        "notes": " ".join(victim.notes),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps({name: tried(name, *form) for name, form in FORMS.items()}))
