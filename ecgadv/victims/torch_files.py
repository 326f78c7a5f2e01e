"""Files and modules of PyTorch: TorchScript and ``torch.export`` without unpickling; copies.

The only module of the victims that imports PyTorch by name; it is an optional extra.
"""

from __future__ import annotations

import contextlib
import copy
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.victims.files import one_line

TOUCHES_FILES = ("aten::save", "aten::from_file")
"""Operations of TorchScript that write or map files; a program with one of them is refused."""


def load_torch(path: Path, where: str) -> Any:
    """A TorchScript (``torch.jit.save``) or ``torch.export`` file as a module.

    Raises:
        VictimError: neither of them; a checkpoint, which is a pickle; or a program that writes or
            reads files.
    """
    import torch

    try:
        if _is_export(path):
            with _no_pickles(torch):
                return torch.export.load(path).module()
        module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # torch raises many kinds on files that are no models
        raise VictimError(
            f"{where} cannot be loaded as TorchScript or torch.export program (a state_dict or a "
            f"pickled module is neither; see torch.export.save): {one_line(error)}"
        ) from None
    graph = str(module.inlined_graph) if hasattr(module, "graph") else ""
    for operation in TOUCHES_FILES:
        if operation in graph:
            raise VictimError(f"{where}: its program has {operation}, which touches files; refused")
    return module


def copied(module: Any, name: str, own: bool = False) -> tuple[Any, tuple[str, ...]]:
    """A module as it is at this moment: switched to evaluation, frozen, float32, on our device.

    Args:
        module: a ``torch.nn.Module``, a TorchScript module or one of ``torch.export``; unchanged.
        name: of the victim, for messages.
        own: the module is nobody else's, so it need not be copied.

    Returns:
        The copy, and notes for the user.

    Raises:
        VictimError: it cannot be copied.
    """
    import torch

    # What torch.compile and the data-parallel wrappers stand around.
    module = getattr(module, "_orig_mod", module)
    if type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
        module = module.module
    if not own:
        try:
            with torch.no_grad():
                module = copy.deepcopy(module, _activations_kept(module, torch))
        except Exception as error:  # a module may hold anything
            raise VictimError(
                f"victim {name}: the module cannot be copied ({one_line(error)}); give a function "
                "that makes it as module:function, or a function of a tensor that calls it, which "
                "is not copied"
            ) from None
    with contextlib.suppress(NotImplementedError):  # torch.export's modules have one mode only
        module.eval()
    held = [*module.parameters(), *module.buffers()]
    kinds = {str(t.dtype).removeprefix("torch.") for t in held if t.is_floating_point()}
    others = sorted(kinds - {"float32"})
    notes: tuple[str, ...] = ()
    if others:
        module = module.float()
        notes = (f"it was made in {', '.join(others)}: taken in float32, weights kept",)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.to(backend.tensor([0.0], "float32").device), notes


def weights(module: Any) -> list[np.ndarray]:
    """All tensors of a module's state, quantised ones as the numbers that they stand for."""
    import torch

    tensors = [v.detach() for v in module.state_dict().values() if isinstance(v, torch.Tensor)]
    return [np.asarray((t.dequantize() if t.is_quantized else t).cpu()) for t in tensors]


def folded_module(module: Any) -> tuple[Any, int, int]:
    """A copy of a module whose batch normalisations are part of the layers before them.

    A normalisation is left where another layer takes its input too, and where a layer is called
    more than once. TorchScript folds by its own rules.

    Args:
        module: as :func:`copied` made it; unchanged.

    Returns:
        The copy (``module`` itself where nothing can be folded), the number of normalisations
        folded, and the number that there were.

    Raises:
        Exception: whatever tracing raises, on a module whose way depends on values, say.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return _folded_script(module)
    there = sum(
        isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in module.modules()
    )
    if not there:
        return module, 0, 0
    traced = torch.fx.symbolic_trace(copy.deepcopy(module))
    gone = _fold_traced(traced)
    return (traced if gone else module), gone, there


def _folded_script(module: Any) -> tuple[Any, int, int]:
    import torch

    there = str(module.inlined_graph).count("aten::batch_norm")
    if not there:
        return module, 0, 0
    frozen = torch.jit.freeze(module)
    gone = there - str(frozen.inlined_graph).count("aten::batch_norm")
    return (frozen if gone else module), gone, there


def _fold_traced(traced: Any) -> int:
    """Fold the normalisations of a traced module in place, and count them."""
    from torch import nn
    from torch.nn.utils import fusion

    def transposed(layer: Any, norm: Any) -> Any:
        return fusion.fuse_conv_bn_eval(layer, norm, transpose=True)

    fold: dict[Any, Any] = {nn.Linear: fusion.fuse_linear_bn_eval}
    fold |= dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), fusion.fuse_conv_bn_eval)
    fold |= dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), transposed)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    passing = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    modules = dict(traced.named_modules())
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)

    def alone(node: Any) -> Any:
        """The module of a call, where it is the only one and one other call takes its answer."""
        is_call = getattr(node, "op", "") == "call_module" and times[node.target] == 1
        return modules[node.target] if is_call and len(node.users) == 1 else None

    gone = 0
    for node in calls:
        norm = modules[node.target]
        if type(norm) not in norms or not norm.track_running_stats or times[node.target] != 1:
            continue
        before: Any = node.args[0] if node.args else None
        while type(alone(before)) in passing:
            before = before.args[0]
        layer = alone(before)
        if type(layer) not in fold or _width(layer) != norm.num_features:
            continue
        modules[before.target] = fold[type(layer)](layer, norm)
        traced.add_submodule(before.target, modules[before.target])
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)
        gone += 1
    traced.delete_all_unused_submodules()
    traced.recompile()
    return gone


def _width(layer: Any) -> int:
    """Channels that a layer answers; 0 where PyTorch's folding does not know it."""
    if getattr(layer, "transposed", False) and layer.groups > 1:
        return 0
    return int(getattr(layer, "out_channels", 0) or layer.out_features)


def _activations_kept(module: Any, torch: Any) -> dict[int, Any]:
    """Tensors that modules hold as results of a calculation, detached: those cannot be copied."""
    kept: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            inner = list(value.values()) if isinstance(value, dict) else value
            for tensor in inner if isinstance(inner, list | tuple) else [inner]:
                if isinstance(tensor, torch.Tensor) and not tensor.is_leaf:
                    kept[id(tensor)] = tensor.detach().clone()
    return kept


def _is_export(path: Path) -> bool:
    """Whether a zip is a ``torch.export`` archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any("archive_format" in name or "serialized_exported_program" in name for name in names)


@contextlib.contextmanager
def _no_pickles(torch: Any) -> Iterator[None]:
    """While open, ``torch.load`` unpickles plain tensors only, whatever its caller asks for."""
    load = torch.load

    def strict(*args: Any, **options: Any) -> Any:
        return load(*args, **{**options, "weights_only": True})

    torch.load = strict
    try:
        yield
    finally:
        torch.load = load
