"""One spelling for each value: absolute paths, numbers that texts spell, names as texts."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgadv.config.experiment import accepted
from ecgadv.errors import ConfigError, DataError
from ecgadv.making import OPEN_MAPPINGS, leaves, lookup
from ecgadv.options import Place, Source, form_of, is_whole, read

Config = dict[str, Any]


_OF_ANYBODY = {"data.root": Place | None, "victim.path": Source | None}
"""Keys that name files, whoever declares them."""


def normalise(
    cfg: Mapping[str, Any], cwd: Path | str | None = None, only_shown: bool = False
) -> Config:
    """A copy with absolute paths and one spelling for each value.

    Args:
        cfg: a composed configuration as plain dicts.
        cwd: where relative paths start; ``paths.outputs`` starts at ``paths.root`` instead.
        only_shown: nothing will run, so what its modules declare is not needed.
    """
    out: Config = copy.deepcopy(dict(cfg))
    known = accepted(out, only_shown)
    _read_texts(out, known)
    base = Path(cwd) if cwd is not None else Path.cwd()

    def absolute(start: Path, value: str) -> str:
        try:
            return os.path.normpath(start / Path(value).expanduser())
        except RuntimeError:
            raise ConfigError(f"{value}: nobody's home folder is known by that name") from None

    paths = out.get("paths")
    root = paths.get("root") if isinstance(paths, dict) else None
    is_named = isinstance(root, str) and root.strip()
    below = Path(absolute(base, str(root))) if is_named else base
    for path, hint in (_OF_ANYBODY | known).items():
        form, value = form_of(hint), lookup(out, path)
        if form is None or not form.names or not isinstance(value, str) or not value.strip():
            continue
        # A victim may be module:function, which is no path.
        named = form.names == "source" and re.fullmatch(r"[\w.]+:[\w.]+", value)
        if not named or (base / value).exists():
            start = below if path == "paths.outputs" else base
            _put(out, path, absolute(start, value))
    selection = out.get("selection")
    if isinstance(selection, dict):
        for key in ("source", "records"):
            value = selection.get(key)
            if isinstance(value, str) or is_whole(value):
                value = [value]
            if isinstance(value, list) and None not in value:
                # Names such as 100 are numbers to the override grammar.
                selection[key] = ["noise" if v == "~" else str(v) for v in value]
    for path in OPEN_MAPPINGS:
        section, _, key = path.partition(".")
        node = out.get(section)
        if isinstance(node, dict) and isinstance(node.get(key), Mapping):
            node[key] = _as_text(node[key], path == "data.label_map")
    victim = out.get("victim")
    if isinstance(victim, dict) and isinstance(victim.get("classes"), list):
        victim["classes"] = [_text(name) for name in victim["classes"]]
    return out


def _text(name: Any) -> Any:
    """A class or a label as text: 1 and 1.0 are "1"; what cannot be one stays."""
    from ecgadv.records.base import class_name
    from ecgadv.records.labels import text_of

    return class_name(text_of(name)) if isinstance(name, str | int | float | None) else name


def _as_text(mapping: Mapping[Any, Any], values_too: bool) -> dict[str, Any]:
    """A mapping of the user's names with these as text, which can be sorted and compared.

    Raises:
        DataError: two of its keys are the same text.
    """
    named: dict[str, Any] = {}
    for key, value in mapping.items():
        name, kept = _text(key), _text(value) if values_too else value
        if named.setdefault(name, kept) != kept:
            raise DataError(f"data.label_map: label {name} is mapped to {named[name]} and {kept}")
    return named


def _put(cfg: Config, path: str, value: Any) -> None:
    """Set a dotted key that is there."""
    *sections, key = path.split(".")
    for section in sections:
        cfg = cfg[section]
    cfg[key] = value


def _read_texts(cfg: Config, known: Mapping[str, Any]) -> None:
    """Make numbers and truth values of texts that spell them, where an option is one."""
    for path, value in list(leaves(cfg)):
        if path in known:
            _put(cfg, path, read(known[path], value))
