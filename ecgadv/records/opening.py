"""A data source opened for a classifier: at its sampling rate, with its classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ecgadv.errors import DataError
from ecgadv.making import look_here
from ecgadv.records.base import CLASSES, RecordSet
from ecgadv.records.preprocessing import FS


def open_source(
    node: Mapping[str, Any],
    make: Callable[..., Any],
    fs: int = FS,
    classes: Sequence[str] = CLASSES,
) -> RecordSet:
    """The recordings that a ``data`` group names.

    A source that knows them is told the classifier's ``rate`` and ``classes``; what another one
    returns is resampled.

    Args:
        node: an option of the group, with its ``_target_``.
        make: calls the target with the node's other keys and further arguments.
        fs: sampling rate of the classifier, Hz.
        classes: of the classifier.

    Raises:
        DataError: the target returned no record set.
    """
    extra: dict[str, Any] = {}
    if fs != FS or tuple(classes) != CLASSES:
        known = _parameters(str(node.get("_target_")))
        extra = {"rate": fs} if "rate" in known else {}
        extra |= {"classes": tuple(classes)} if "classes" in known else {}
    records = make(node, **extra)
    if not isinstance(records, RecordSet):
        name = node.get("name", node.get("_target_"))
        raise DataError(f"data={name}: its _target_ returned no RecordSet")
    return records.at(fs)


def _parameters(target: str) -> set[str]:
    """Names of the arguments of a dotted name; empty where it has no signature."""
    module, _, name = target.rpartition(".")
    look_here()
    try:
        return set(inspect.signature(getattr(import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return set()
