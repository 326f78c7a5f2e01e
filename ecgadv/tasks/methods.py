"""The methods of a benchmark by name: attacks that are registered, peers, and what each knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ecgadv.attacks.registry import attack_kinds
from ecgadv.errors import ConfigError
from ecgadv.making import instantiate
from ecgadv.threat import metrics
from ecgadv.threat.metrics import Quadratic


def known_metric(cfg: Mapping[str, Any], name: str) -> Quadratic:
    """A metric by name; that of the configuration with its options."""
    if name != cfg["metric"]["name"]:
        return metrics.get(name)
    form: Quadratic = instantiate(cfg["metric"])
    return form


def own_methods(cfg: Mapping[str, Any]) -> list[str]:
    """Attacks that need no peers: that of the configuration, and those that minimise."""
    found = [name for name, kind in attack_kinds().items() if kind.minimises]
    return list(dict.fromkeys([str(cfg["attack"]["name"]), *found]))


def applies(metric: str, method: str, own: Sequence[str]) -> bool:
    """Whether a method knows a metric: peers have the Euclidean norm only."""
    return metric == "l2" or method_name(method)[0] in own


def method_name(method: str) -> tuple[str, int | str | None]:
    """``minnorm_100`` -> ("minnorm", 100), ``minnorm_auto`` with "auto", ``cw`` with None."""
    match = re.fullmatch(r"([A-Za-z]\w*?)(?:_(\d+|auto))?", method)
    if match is None or match[2] == "0":
        raise ConfigError(f"benchmark.methods={method}: must be NAME or NAME_STEPS")
    return match[1], int(match[2]) if (match[2] or "").isdigit() else match[2]
