"""What each key accepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ecgadv import spelling

TASKS = ("attack", "train", "evaluate", "report", "track", "benchmark")


def _as_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Rule:
    """What one key accepts.

    Attributes:
        wanted: completes "must be …" in the error.
        accepts: whether a value is fine.
        read: what a value means, such as the number that a text spells.
    """

    wanted: str
    accepts: Callable[[Any], bool]
    read: Callable[[Any], Any] = _as_is


def parse_shard(text: str) -> tuple[int, int] | None:
    """(1, 4) of ``1/4``; ``None`` where it is no share."""
    match = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", text)
    if match is None or int(match[1]) > int(match[2]):
        return None
    return int(match[1]), int(match[2])


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _integer(low: int, high: int | None = None) -> Rule:
    limits = f"at least {low}" if high is None else f"from {low} to {high}"
    return Rule(
        f"a whole number, {limits}",
        lambda v: _is_int(v) and v >= low and (high is None or v <= high),
        spelling.whole,
    )


def _number(low: float, *, above: bool = False) -> Rule:
    return Rule(
        f"a number {'above' if above else 'of at least'} {low:g}",
        lambda v: _is_number(v) and abs(v) != float("inf") and (v > low if above else v >= low),
        spelling.number,
    )


def _choice(*options: str) -> Rule:
    return Rule(f"one of {', '.join(options)}", lambda v: v in options)


def _either(word: str | None, rule: Rule) -> Rule:
    shown = "null" if word is None else word
    return Rule(
        f"{rule.wanted}, or {shown}",
        lambda v: (v is None if word is None else v == word) or rule.accepts(v),
        lambda v: rule.read(spelling.null(v) if word is None and rule.read is not _as_is else v),
    )


def _list_of(
    what: str,
    accepts: Callable[[Any], bool],
    *,
    empty: bool = False,
    read: Callable[[Any], Any] = _as_is,
) -> Rule:
    return Rule(
        f"a list of {what} in [ ]",
        lambda v: isinstance(v, list) and (empty or bool(v)) and all(accepts(i) for i in v),
        read,
    )


_BOOLEAN = Rule("true or false", lambda v: isinstance(v, bool), spelling.flag)

_TEXT = Rule("a word or a text", lambda v: isinstance(v, str) and v != "")

_PATH = Rule("a path", lambda v: isinstance(v, str) and v.strip() != "")

_OPTIONAL_PATH = _either(None, _PATH)

_TIME = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,2})?)\s*s\s*")

_WINDOW = Rule(
    "a number of samples, at least 1, or a time such as 10s",
    lambda v: (
        (_is_int(v) and v >= 1)
        or (isinstance(v, str) and re.fullmatch(r"\d+(\.\d+)?\s*s", v) is not None)
    ),
    spelling.whole,
)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(map(_is_number, value))
        and 0 <= value[0] < value[1]
    )


_PAIR = Rule(
    "two numbers, [low,high] with low below high",
    _is_pair,
    spelling.number,
)

_FREQUENCIES = Rule(
    "a list of frequencies in Hz such as [50,60]",
    lambda v: isinstance(v, list) and all(map(_is_number, v)),
    spelling.number,
)

_SHARD = Rule(
    "I/N, share I of N, such as 1/4", lambda v: isinstance(v, str) and parse_shard(v) is not None
)

_MAPPING = Rule("a mapping such as {AFIB: A, SR: N}", lambda v: isinstance(v, Mapping))

RULES: dict[str, Rule] = {
    "task": _choice(*TASKS),
    "target": _TEXT,
    "threat_model": _choice("type1", "type2"),
    "deployment": _choice("cloud", "local"),
    "backend": _choice("tensorflow", "jax", "torch"),
    "seed": _integer(0, 2**32 - 1),
    "batch_size": _either("auto", _integer(1)),
    "precision": _choice("auto", "float32", "bfloat16"),
    "window": _either(None, _WINDOW),
    "universal": Rule(
        "true, false or all", lambda v: isinstance(v, bool) or v == "all", spelling.flag
    ),
    "resume": _BOOLEAN,
    "sweep": _OPTIONAL_PATH,
    "shard": _either(None, _SHARD),
    "paths.root": _PATH,
    "paths.data": _OPTIONAL_PATH,
    "paths.outputs": _PATH,
    "data.root": _OPTIONAL_PATH,
    "data.seed": _integer(0, 2**32 - 1),
    "data.per_class": _integer(1),
    "data.difficulty": _number(0),
    "data.labels": _either(None, _TEXT),
    "data.lead": Rule(
        "a lead's name, its number from 0, a list of them, or all",
        lambda v: all(
            (_is_int(one) and one >= 0) or (isinstance(one, str) and one != "")
            for one in (v if isinstance(v, list) and v else [v])
        ),
    ),
    "data.fs": _either(None, _number(0, above=True)),
    "data.label_map": _either(None, _MAPPING),
    "data.key": _either(None, _TEXT),
    "data.units": _either(None, _TEXT),
    "data.start": Rule(
        "seconds, at least 0, such as 60 or 60s",
        lambda v: (
            (_is_number(v) and 0 <= v < float("inf"))
            or (isinstance(v, str) and _TIME.fullmatch(v) is not None)
        ),
        lambda v: spelling.number(
            m[1] if isinstance(v, str) and (m := _TIME.fullmatch(v)) is not None else v
        ),
    ),
    "data.trim_zeros": _BOOLEAN,
    "victim.path": _OPTIONAL_PATH,
    "victim.classes": _either(None, _list_of("names", lambda v: isinstance(v, str | int))),
    "victim.fs": _either(None, _integer(1)),
    "victim.n": _either(None, _integer(8)),
    "victim.leads": _either(None, _integer(1)),
    "victim.channels": _either(None, _choice("last", "first")),
    "victim.standardise": _either(None, _choice("lead", "record", "none")),
    "victim.preprocess": _either(None, _TEXT),
    "metric.ridge": _number(0),
    "metric.k": _number(0),
    "attack.starts": _either("auto", _integer(1)),
    "attack.steps": _integer(1),
    "attack.search_steps": _integer(0),
    "attack.first_step": _number(0, above=True),
    "attack.last_step": _number(0, above=True),
    "attack.shrink": _number(0, above=True),
    "attack.learning_rate": _number(0, above=True),
    "attack.paper_steps": _integer(1),
    "attack.schedule": _choice("budget", "paper"),
    "attack.power": _number(0, above=True),
    "attack.start_power": _number(1),
    "attack.lowest_power": _number(0),
    "attack.highest_power": _number(0, above=True),
    "attack.constant": _number(0, above=True),
    "attack.band": _either(None, _PAIR),
    "attack.peak": _either(None, _number(0, above=True)),
    "attack.mask": _either(
        None,
        Rule(
            "spans in seconds, [from,to] or [[from,to],[from,to]]",
            lambda v: _is_pair(v) or (isinstance(v, list) and bool(v) and all(map(_is_pair, v))),
            spelling.number,
        ),
    ),
    "attack.train_records": _integer(1),
    "attack.initial_constant": _number(0, above=True),
    "attack.check_every": _integer(1),
    "attack.tolerance": _number(0),
    "attack.kappa": _number(0),
    "attack.perturb_padding": _BOOLEAN,
    "attack.budget": _number(0, above=True),
    "attack.step_size": _either(None, _number(0, above=True)),
    "attack.random_start": _BOOLEAN,
    "attack.norm": _choice("l2", "linf"),
    "attack.decay": _number(0),
    "eot.shifts": _integer(1),
    "filter.high_pass": _number(0, above=True),
    "filter.mains": _either(None, _FREQUENCIES),
    "filter.q": _number(0, above=True),
    "evaluation.high_pass": _either(None, _number(0, above=True)),
    "evaluation.mains": _either(None, _FREQUENCIES),
    "evaluation.shifts": _integer(1),
    "evaluation.max_records": _either(None, _integer(1)),
    "evaluation.order": _choice("shift_filter", "filter_shift"),
    "evaluation.filter": _choice("none", "rectangular", "butterworth"),
    "tracking.uri": _either(None, _TEXT),
    "tracking.experiment": _TEXT,
    "tracking.system_metrics": _BOOLEAN,
    "train.architecture": _choice("compact", "resnet34"),
    "train.epochs": _integer(1),
    "train.batch_size": _integer(1),
    "train.learning_rate": _number(0, above=True),
    "train.weight_decay": _number(0),
    "train.class_weight": _number(0),
    "train.seed": _integer(0, 2**32 - 1),
    "train.folds": _integer(2),
    "train.fold": _integer(0),
    "train.split_seed": _integer(0, 2**32 - 1),
    "train.precision": _choice("float32", "bfloat16"),
    "train.limit": _integer(0),
    "train.short_epochs": _integer(0),
    "train.short_seconds": _number(1),
    "evaluate.run": _OPTIONAL_PATH,
    "evaluate.study": _OPTIONAL_PATH,
    "evaluate.study_key": _OPTIONAL_PATH,
    "report.run": _OPTIONAL_PATH,
    "report.vector": _BOOLEAN,
    "report.study": _BOOLEAN,
    "report.study_records": _integer(2),
    "report.study_seconds": _number(0, above=True),
    "track.run": _OPTIONAL_PATH,
    "benchmark.methods": _list_of("names of methods", lambda v: isinstance(v, str)),
    "benchmark.metrics": _list_of("names of metrics", lambda v: isinstance(v, str)),
    "benchmark.per_class": _integer(1),
    "benchmark.scaling": _list_of(
        "whole numbers", lambda v: _is_int(v) and v >= 1, empty=True, read=spelling.whole
    ),
    "benchmark.scaling_method": _TEXT,
    "benchmark.out": _OPTIONAL_PATH,
}
"""The schema. A key that is not here keeps the type that its yaml gives it; ``selection`` and
``tracking.uri`` are checked by the modules that read them."""


def _rule_like(value: Any) -> Rule | None:
    """The rule of a key that the schema leaves out, from its value in the yaml."""
    if isinstance(value, bool):
        return _BOOLEAN
    if isinstance(value, int):
        return Rule("a whole number", _is_int)
    if isinstance(value, float):
        return Rule("a number", _is_number)
    if isinstance(value, str):
        return Rule("a word or a text", lambda v: isinstance(v, str))
    if isinstance(value, list):
        return Rule("a list", lambda v: isinstance(v, list))
    return None
