"""Files of PyTorch: TorchScript and ``torch.export`` programs, without unpickling.

The only module of the victims that imports PyTorch by name; it is an optional extra.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
