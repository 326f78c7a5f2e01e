"""ecgadv: how far a deep ECG classifier can be fooled, measured and verified.

The names below are the public Python interface; importing the package imports no backend.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "attack": ("ecgadv.api", "attack"),
    "filters": ("ecgadv.threat.filters", None),
    "load_run": ("ecgadv.store", "load_run"),
    "load_victim": ("ecgadv.victims.loading", "load_victim"),
    "metrics": ("ecgadv.threat.metrics", None),
    "preprocess": ("ecgadv.victims.inputs", "preprocess"),
}

__all__ = ["__version__", "attack", "filters", "load_run", "load_victim", "metrics", "preprocess"]


def __getattr__(name: str) -> Any:
    # Imported on first use: TensorFlow alone takes seconds, and a wrong option needs none of it.
    if name not in _WHERE:
        raise AttributeError(f"module 'ecgadv' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
