"""A data source by the ``data`` group of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ecgadv.errors import ConfigError, DataError
from ecgadv.records.base import RecordSet


def load_records(node: Mapping[str, Any]) -> RecordSet:
    """Call the loader that ``_target_`` names with the node's other keys.

    A user's own source needs no more than a function that returns a :class:`RecordSet` and a yaml
    that names it.

    Raises:
        ConfigError: the loader cannot be imported.
        DataError: it returns something else, or nothing usable.
    """
    path = str(node["_target_"])
    module, _, name = path.rpartition(".")
    try:
        loader = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"data._target_={path}: cannot be imported ({error})") from None
    options = {k: v for k, v in node.items() if k not in ("_target_", "name")}
    records = loader(**options)
    if not isinstance(records, RecordSet):
        raise DataError(f"data._target_={path}: returned no RecordSet")
    if not len(records):
        raise DataError(f"data={node.get('name', path)}: no usable record")
    return records
