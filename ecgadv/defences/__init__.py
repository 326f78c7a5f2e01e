"""Defences: maps from a victim to the victim that is deployed, attacked and judged in its place.

A defence is part of the network that the attacker differentiates, so every attack on a defended
victim is adaptive. See :meth:`ecgadv.victims.victim.Victim.behind` for one that changes inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ecgadv.errors import VictimError
from ecgadv.victims import files
from ecgadv.victims.preflight import preflight
from ecgadv.victims.victim import Victim

Defence = Callable[[Victim], Victim]


def none() -> Defence:
    """The victim as it is."""
    return lambda victim: victim


def defend(victim: Victim, defence: Defence, name: str, options: Any = None) -> Victim:
    """A victim behind a defence, checked, with a name and a digest of its own.

    Args:
        victim: left as it is.
        defence: the map; it returns another victim, or the same where there is nothing to do.
        name: of the defence; the victim is then called ``compact+name``.
        options: of the defence, as plain values; they are part of the digest.

    Raises:
        VictimError: the defence returns no victim, or one that fails a check.
    """
    result = defence(victim)
    if not isinstance(result, Victim):
        raise VictimError(f"defence={name}: returned a {type(result).__name__}, not a Victim")
    if result is victim:
        return victim
    result.name = f"{victim.name}+{name}"
    source = files.code_digest(defence)
    # Predictions are kept under the digest, so it is "" where something has no source to read.
    known = victim.sha256 and source
    result.sha256 = files.combined_digest(victim.sha256, name, options, source) if known else ""
    preflight(result)
    return result
