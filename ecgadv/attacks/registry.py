"""Every attack of the package by name, and attacks made of a name and options."""

from __future__ import annotations

import difflib
import pkgutil
from dataclasses import fields, replace
from importlib import import_module
from typing import Any, cast

from ecgadv import arguments, attacks
from ecgadv.attacks.base import Attack, DirectAttack
from ecgadv.errors import ConfigError


def attack_kinds() -> dict[str, type[Attack | DirectAttack]]:
    """Every attack of the package by name: a new one is found by being a module there."""
    for module in pkgutil.iter_modules(attacks.__path__):
        import_module(f"{attacks.__name__}.{module.name}")
    found: dict[str, type[Attack | DirectAttack]] = {}
    queue: list[type] = [Attack, DirectAttack]
    while queue:
        below: list[Any] = queue.pop().__subclasses__()
        for kind in below:
            queue.append(kind)
            if "name" in vars(kind) and kind.__module__.startswith(attacks.__name__):
                found[kind.name] = kind
    return found


def make_attack(method: str | Attack | DirectAttack, **options: Any) -> Attack | DirectAttack:
    """An attack by name, or an attack object, with options; ``None`` leaves an option as it is.

    Raises:
        ConfigError: unknown attack or option.
    """
    given = {k: v for k, v in options.items() if v is not None}
    if isinstance(method, Attack | DirectAttack):
        kind: Any = type(method)
    else:
        known = attack_kinds()
        if not isinstance(method, str) or method not in known:
            raise ConfigError(f"method={method}: unknown; there are {', '.join(known)}")
        kind = known[method]
    try:
        names = [f.name for f in fields(kind)]
    except TypeError:
        what = f"method={kind.__name__}"
        raise ConfigError(f"{what}: an attack is a dataclass of its options") from None
    for key, value in options.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise ConfigError(f"{key}={value}: attack {kind.name} has no such option; {meant}")
    given = arguments.options(kind, given)
    try:
        made: Attack | DirectAttack = (
            kind(**given) if isinstance(method, str) else replace(cast(Any, method), **given)
        )
        return made
    except TypeError as error:
        raise ConfigError(f"method={method}: {error}") from None
