"""One spelling for each value: absolute paths, numbers that texts spell, names as texts."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgadv import spelling
from ecgadv.config.rules import _PATH, RULES, _is_int
from ecgadv.errors import ConfigError, DataError
from ecgadv.making import OPEN_MAPPINGS, TARGET, leaves

Config = dict[str, Any]


def normalise(cfg: Mapping[str, Any], cwd: Path | str | None = None) -> Config:
    """A copy with absolute paths and one spelling for each value.

    Args:
        cfg: a composed configuration as plain dicts.
        cwd: where relative paths start; ``paths.outputs`` starts at ``paths.root`` instead.
    """
    out: Config = copy.deepcopy(dict(cfg))
    _read_texts(out)
    base = Path(cwd) if cwd is not None else Path.cwd()

    def absolute(start: Path, value: str) -> str:
        try:
            return os.path.normpath(start / Path(value).expanduser())
        except RuntimeError:
            raise ConfigError(f"{value}: nobody's home folder is known by that name") from None

    paths = out.get("paths")
    if isinstance(paths, dict):
        if _PATH.accepts(paths.get("root")):
            paths["root"] = absolute(base, paths["root"])
            if _PATH.accepts(paths.get("outputs")):
                paths["outputs"] = absolute(Path(paths["root"]), paths["outputs"])
        if _PATH.accepts(paths.get("data")):
            paths["data"] = absolute(base, paths["data"])
    for section, key in (
        ("data", "root"),
        ("victim", "path"),
        ("selection", "file"),
        ("report", "run"),
        ("evaluate", "run"),
        ("evaluate", "study"),
        ("evaluate", "study_key"),
        ("track", "run"),
        ("benchmark", "out"),
    ):
        node = out.get(section)
        if isinstance(node, dict) and _PATH.accepts(node.get(key)):
            # A victim may be module:function, which is no path.
            named = section == "victim" and re.fullmatch(r"[\w.]+:[\w.]+", node[key])
            if not named or (base / node[key]).exists():
                node[key] = absolute(base, node[key])
    if _PATH.accepts(out.get("sweep")):
        out["sweep"] = absolute(base, out["sweep"])
    selection = out.get("selection")
    if isinstance(selection, dict):
        for key in ("source", "records"):
            value = selection.get(key)
            if isinstance(value, str) or _is_int(value):
                value = [value]
            if isinstance(value, list):
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


def _read_texts(cfg: Config) -> None:
    """Make numbers and truth values of texts that spell them, where an option is one."""
    for path, value in list(leaves(cfg)):
        section, _, key = path.partition(".")
        if path in ("selection.per_class", "selection.start", "selection.stop"):
            cfg[section][key] = spelling.whole(spelling.null(value))
        elif path in RULES and not key:
            cfg[section] = RULES[path].read(value)
        elif path in RULES and not _is_foreign(cfg[section]):
            cfg[section][key] = RULES[path].read(value)


def _is_foreign(node: Any) -> bool:
    """Whether a section belongs to a user's own class, whose keys mean what that class says."""
    return isinstance(node, Mapping) and not str(node.get(TARGET, "ecgadv.")).startswith("ecgadv.")
