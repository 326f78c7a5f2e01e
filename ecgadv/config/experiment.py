"""What the keys of a configuration accept that belong to no class or function of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from ecgadv import spelling
from ecgadv.making import TARGET, resolve
from ecgadv.options import Form, Frequencies, Name, Place, Seed, hints, is_whole

Task = Literal["attack", "train", "evaluate", "report", "track", "benchmark"]


def parse_shard(text: str) -> tuple[int, int] | None:
    """(1, 4) of ``1/4``; ``None`` where it is no share."""
    match = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", text)
    if match is None or int(match[1]) > int(match[2]):
        return None
    return int(match[1]), int(match[2])


def _is_window(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\d+(\.\d+)?\s*s", value) is not None
    return is_whole(value) and value >= 1


Shard = Form(
    "I/N, share I of N, such as 1/4", lambda v: isinstance(v, str) and parse_shard(v) is not None
)
Window = Form("a number of samples, at least 1, or a time such as 10s", _is_window, spelling.whole)
Universal = Form("true, false or all", lambda v: isinstance(v, bool) or v == "all", spelling.flag)


@dataclass(frozen=True)
class Experiment:
    """Keys at the top."""

    task: Task
    target: Name
    threat_model: Literal["type1", "type2"]
    deployment: Literal["cloud", "local"]
    backend: Literal["tensorflow", "jax", "torch"]
    seed: Seed
    batch_size: Annotated[int, Ge(1)] | Literal["auto"]
    precision: Literal["auto", "float32", "bfloat16"]
    window: Annotated[int | str, Window] | None
    universal: Annotated[bool | str, Universal]
    resume: bool
    sweep: Place | None
    shard: Annotated[str, Shard] | None


@dataclass(frozen=True)
class Paths:
    """``paths``: where files lie; ``outputs`` starts at ``root``."""

    root: Place
    data: Place | None
    outputs: Place


@dataclass(frozen=True)
class Shifts:
    """``eot``."""

    shifts: Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Evaluation:
    """``evaluation``: how a shifted perturbation is judged."""

    shifts: Annotated[int, Ge(1)]
    max_records: Annotated[int, Ge(1)] | None
    order: Literal["shift_filter", "filter_shift"]
    filter: Name
    high_pass: Annotated[float, Gt(0)] | None
    mains: Frequencies | None


@dataclass(frozen=True)
class Tracking:
    """``tracking``; where ``uri`` may lead is for :func:`ecgadv.tracking.uris.resolve_uri`."""

    uri: Name | None
    experiment: Name
    system_metrics: bool


SECTIONS = {
    "paths": f"{__name__}.Paths",
    "eot": f"{__name__}.Shifts",
    "evaluation": f"{__name__}.Evaluation",
    "selection": "ecgadv.records.selection.Selection",
    "tracking": f"{__name__}.Tracking",
    "train": "ecgadv.victims.training.TrainSettings",
    "evaluate": "ecgadv.tasks.options.Evaluate",
    "report": "ecgadv.tasks.options.Report",
    "track": "ecgadv.tasks.options.Track",
    "benchmark": "ecgadv.tasks.options.Benchmark",
}
"""Who declares the keys of a section without a ``_target_``."""


def is_foreign(node: Any) -> bool:
    """Whether a section belongs to a class that is not ours.

    It may import a backend, so it is looked at only when the run has chosen one.
    """
    return isinstance(node, Mapping) and not str(node.get(TARGET, "ecgadv.")).startswith("ecgadv.")


def accepted(cfg: Mapping[str, Any], only_here: bool = False) -> dict[str, Any]:
    """Dotted key -> annotation, of every key that something of ours declares.

    Args:
        cfg: a configuration.
        only_here: without what other modules declare, which are then not imported.

    Raises:
        ConfigError: a ``_target_`` of ours cannot be imported.
    """
    found: dict[str, Any] = dict(hints(Experiment))
    for section, node in cfg.items():
        if not isinstance(node, Mapping) or is_foreign(node):
            continue
        target = node.get(TARGET, SECTIONS.get(section))
        if not target or (only_here and not target.startswith(__name__)):
            continue
        known = hints(resolve({TARGET: target}))
        found |= {f"{section}.{name}": known[name] for name in node if name in known}
    return found
