"""From the nodes of a configuration to objects: dotted keys, and what ``_target_`` names."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ecgadv.errors import ConfigError, one_line
from ecgadv.spelling import suggestion

OPEN_MAPPINGS = ("selection.per_class", "data.label_map")
"""Keys whose value is a mapping with names of the user's."""

TARGET, PARTIAL = "_target_", "_partial_"

NO_ARGUMENTS = (TARGET, PARTIAL, "name")
"""Keys of an option that are no arguments of what it names."""


def look_here() -> None:
    """Find modules in the working folder too, as ``python -m`` does."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; open mappings are values."""
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in OPEN_MAPPINGS:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def lookup(cfg: Mapping[str, Any], path: str) -> Any:
    """Value of a dotted key; ``None`` where there is none."""
    node: Any = cfg
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def resolve(node: Mapping[str, Any]) -> Any:
    """The class or function that ``_target_`` names.

    Raises:
        ConfigError: it cannot be imported, or cannot be called.
    """
    target = node.get(TARGET)
    label = f"{TARGET}={target}"
    if not isinstance(target, str) or not all(p.isidentifier() for p in target.split(".")):
        raise ConfigError(f"{label}: must be a dotted name such as package.module.Class")
    module_name, _, attribute = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{label}: must be a dotted name such as package.module.Class")
    look_here()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(f"{label}: cannot import {module_name} ({one_line(error)})") from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{label}: {module_name} has no {attribute}{suggestion(attribute, dir(module))}"
        )
    call = getattr(module, attribute)
    if not callable(call):
        raise ConfigError(f"{label}: must be a class or a function")
    return call


def instantiate(node: Mapping[str, Any], **extra: Any) -> Any:
    """Call what ``_target_`` names with the node's other keys as keyword arguments.

    Args:
        node: an option of a group; its ``name`` is not passed on. With ``_partial_: true`` the
            arguments are bound, and whoever uses the result calls it, as in Hydra.
        **extra: further arguments; they win over those of the node.

    Raises:
        ConfigError: the target cannot be imported, cannot be called, or does not know an argument.
    """
    call = resolve(node)
    label = f"{TARGET}={node[TARGET]}"
    arguments = {k: v for k, v in node.items() if k not in NO_ARGUMENTS} | extra
    parameters: Mapping[str, inspect.Parameter] = {}
    # Some callables written in C have no signature; they check for themselves.
    with contextlib.suppress(TypeError, ValueError):
        parameters = inspect.signature(call).parameters
    if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            if key not in parameters:
                raise ConfigError(f"{label}: takes no {key}{suggestion(key, parameters)}")
    if node.get(PARTIAL):
        return functools.partial(call, **arguments)
    missing = [
        name
        for name, p in parameters.items()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{label}: needs {', '.join(missing)}")
    return call(**arguments)
