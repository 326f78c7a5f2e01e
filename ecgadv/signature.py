"""What a configuration is, as one digest; and how two of them differ."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ecgadv.making import TARGET, leaves, look_here
from ecgadv.spelling import show

NOT_IN_SIGNATURE = ("paths", "tracking", "resume", "sweep", "shard", "report", "track")
"""Top-level keys that say where results go and who makes them, not what they are."""


def signature(cfg: Mapping[str, Any]) -> str:
    """Digest of everything in a normalised configuration that changes results.

    Left out is :data:`NOT_IN_SIGNATURE` (for the tasks that read earlier runs, ``sweep``,
    ``report`` and ``track`` stay in). A victim or index file counts by its content, not its name.

    Returns:
        64 hexadecimal digits; folder names take the first 10.
    """
    task = cfg.get("task")
    kept = {k: v for k, v in cfg.items() if k not in NOT_IN_SIGNATURE}
    if task in ("report", "track"):
        kept = {k: cfg[k] for k in ("task", "sweep", "report", "track") if k in cfg}
    kept = copy.deepcopy(kept)
    for section, key in (("victim", "path"), ("selection", "file")):
        node = kept.get(section)
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = _file_digest(node[key])
    for section, node in list(kept.items()):
        source = own_source(node) if isinstance(node, dict) else ""
        if source:
            kept[section] = node | {"source": source}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(earlier: Mapping[str, Any], cfg: Mapping[str, Any], most: int = 3) -> str:
    """How two configurations differ, as ``metric=l2, not diff``; "" where no value does."""
    old, new = (
        {
            path.removesuffix(".name"): value
            for path, value in leaves({k: v for k, v in c.items() if k not in NOT_IN_SIGNATURE})
            if not path.endswith(f".{TARGET}")
        }
        for c in (earlier, cfg)
    )
    keys = [k for k in [*new, *(k for k in old if k not in new)] if old.get(k) != new.get(k)]
    # What an earlier version did not have says nothing of what was asked.
    keys = [k for k in keys if k.partition(".")[0] in earlier or old.get(k) is not None]
    # A chosen option says more than the values that come with it.
    keys.sort(key=lambda k: "." in k)
    told = [f"{k}={show(old.get(k))}, not {show(new.get(k))}" for k in keys[:most]]
    more = f"; and {len(keys) - most} more" if len(keys) > most else ""
    return "; ".join(told) + more


def own_source(node: Any) -> str:
    """Digest of the file of the module that a ``_target_`` of somebody's own names; "" of ours.

    Nothing is imported. Where the file is not found, the configuration alone counts.
    """
    found = []
    for part in (node, node.get("front_end")):
        name = str(part.get(TARGET, "ecgadv.")) if isinstance(part, Mapping) else "ecgadv."
        top, *inner = name.rpartition(".")[0].split(".")
        if top in ("", "ecgadv"):
            continue
        look_here()
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            continue
        if spec is None or spec.origin is None:
            continue
        place = Path(spec.origin)
        if inner:
            place = place.parent.joinpath(*inner)
            place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if place.is_file():
            found.append(_file_digest(str(place)))
    return " ".join(found)


def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError:
        return path
