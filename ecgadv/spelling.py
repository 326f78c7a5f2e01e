"""Values as command lines and configurations spell them: read, shown, and nearly right.

Quotes on a command line and variables of the environment (``${oc.env:STEPS}``) make texts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_EXACT = 2**53


def number(value: Any) -> Any:
    """The number that a text spells, as it would be without quotes; anything else stays.

    Lists and mappings are read value by value.
    """
    if isinstance(value, list):
        return [number(item) for item in value]
    if isinstance(value, Mapping):
        return {key: number(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    text = value.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else value


def whole(value: Any) -> Any:
    """The same, and whole numbers with a decimal point as whole numbers: ``10.0`` is 10."""
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, Mapping):
        return {key: whole(item) for key, item in value.items()}
    found = number(value)
    if isinstance(found, float) and found.is_integer() and abs(found) < _EXACT:
        return int(found)
    return found


def flag(value: Any) -> Any:
    """``True`` and ``False`` of the texts ``true`` and ``false``; anything else stays."""
    if not isinstance(value, str):
        return value
    return {"true": True, "false": False}.get(value.strip().lower(), value)


def null(value: Any) -> Any:
    """``None`` of the text ``null``; anything else stays."""
    return None if isinstance(value, str) and value.strip() == "null" else value


def show(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(show(v) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}:{show(v)}' for k, v in value.items())}}}"
    return str(value)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Names the known word that a misspelt one most likely means; "" where nothing is known.

    Where ``known`` has dotted keys, the last part may stand alone (``steps`` for ``attack.steps``).
    """
    last = word.rpartition(".")[2]
    scores = {}
    for name in sorted(set(known)):
        ratio = difflib.SequenceMatcher(None, word, name).ratio()
        tail = name.rpartition(".")[2]
        if tail == last:
            ratio = max(ratio, 0.99)
        elif "." in name:
            ratio = max(ratio, 0.95 * difflib.SequenceMatcher(None, last, tail).ratio())
        scores[name] = ratio
    if not scores:
        return ""
    best = max(scores, key=scores.__getitem__)
    return f"; did you mean {best}?" if scores[best] >= 0.5 else f"; the nearest is {best}"
