"""Defences: maps from a victim to the victim that is deployed, attacked and judged in its place.

A defence is part of the network that the attacker differentiates, so every attack on a defended
victim is adaptive. See :meth:`ecgadv.victims.victim.Victim.behind` for one that changes inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ecgadv.errors import VictimError
from ecgadv.victims import files
from ecgadv.victims.preflight import preflight
from ecgadv.victims.twin import weights_of
from ecgadv.victims.victim import Victim, digest_weights

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
    given = victim.copied()
    result = defence(given)
    if not isinstance(result, Victim):
        raise VictimError(f"defence={name}: returned a {type(result).__name__}, not a Victim")
    parts = ("preprocess", "model", "_forward")
    if result is given and all(getattr(given, key) is getattr(victim, key) for key in parts):
        return victim
    if result.model is victim.model and result._forward is not victim._forward:
        # The Keras model is no longer what computes the logits, so no twin may be made of it.
        result.model = None
    result.name = f"{victim.name}+{name}"
    source = files.code_digest(defence)
    # Predictions are kept under the digest, so it is "" where something has no source to read.
    known = victim.sha256 and result.sha256 and source
    network = digest_weights(weights_of(result))
    told = (victim.sha256, result.sha256, network, name, _by_content(options), source)
    result.sha256 = files.combined_digest(*told) if known else ""
    preflight(result)
    return result


def _by_content(options: Any) -> Any:
    """Options with the digest of a file in the place of its name."""
    if isinstance(options, Mapping):
        return {key: _by_content(value) for key, value in options.items()}
    if isinstance(options, str) and Path(options).is_file():
        return hashlib.sha256(Path(options).read_bytes()).hexdigest()
    return options
