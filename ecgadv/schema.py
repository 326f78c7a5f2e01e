"""What a configuration may hold: types, ranges, paths; its name and its signature.

Nothing heavy is imported, and nothing of Hydra: a configuration is a plain nested dict here.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import math
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgadv import spelling
from ecgadv.errors import BackendError, ConfigError, DataError, NothingToDoError, VictimError

if TYPE_CHECKING:
    from ecgadv.victims.declared import Reading

Config = dict[str, Any]

CLASS_NAMES = ("A", "N", "O", "noise")
TASKS = ("attack", "train", "evaluate", "report", "track", "benchmark")

NOT_IN_SIGNATURE = ("paths", "tracking", "resume", "sweep", "shard", "report", "track")
"""Top-level keys that say where results go and who makes them, not what they are."""

OPEN_MAPPINGS = ("selection.per_class", "data.label_map")
"""Keys whose value is a mapping with names of the user's."""

TARGET = "_target_"
NAME_LIMIT = 100


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
    "benchmark.metrics": _list_of("l2, diff, diffl2", lambda v: v in ("l2", "diff", "diffl2")),
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


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; open mappings are values."""
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in OPEN_MAPPINGS:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def lookup(cfg: Mapping[str, Any], path: str) -> Any:
    """Value of a dotted key; ``None`` where there is none."""
    node: Any = cfg
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


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


# --- values -----------------------------------------------------------------------------------


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


def validate(cfg: Mapping[str, Any], like: Mapping[str, Any] | None = None) -> None:
    """Check all values of a normalised configuration, and the files that it names.

    Args:
        cfg: see :func:`normalise`.
        like: the same composition without value overrides; gives the type of keys that
            :data:`RULES` leaves out.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or contradicts another one.
        DataError: ``data.root`` is missing or of the wrong kind.
        VictimError: ``victim.path`` is missing or no model file.
    """
    default = dict(leaves(like or {}))
    for path, value in leaves(cfg):
        foreign = _is_foreign(cfg[path.partition(".")[0]])
        rule = None if foreign else RULES.get(path)
        if rule is None and path != "selection.per_class":
            rule = _rule_like(default.get(path))
        if rule is not None and not rule.accepts(value):
            raise ConfigError(f"{path}={show(value)}: must be {rule.wanted}")
    _check_victim(cfg)
    _check_target(cfg)
    _check_backend(cfg)
    _check_injection(cfg)
    _check_limits(cfg)
    _check_selection(cfg)
    _check_task(cfg)
    _check_data(cfg)
    _check_folders(cfg)


def _check_injection(cfg: Mapping[str, Any]) -> None:
    """Options of Type II: what only injected signals have, and frequencies and windows that fit."""
    if cfg.get("task") not in ("attack", "evaluate"):
        return
    filter_name, attack = lookup(cfg, "filter.name"), lookup(cfg, "attack.name")
    if cfg.get("task") == "attack" and cfg.get("threat_model") != "type2":
        for option, given in (
            ("attack=eot", attack == "eot"),
            (f"filter={filter_name}", filter_name not in (None, "none")),
            (f"window={show(cfg.get('window'))}", cfg.get("window") is not None),
            (f"universal={show(cfg.get('universal'))}", bool(cfg.get("universal"))),
        ):
            if given:
                raise ConfigError(f"{option} is for injected signals: it needs threat_model=type2")
        if cfg.get("deployment") == "cloud" and lookup(cfg, "eot.name") == "shift":
            from ecgadv.threat.channel import NO_SHIFTS

            raise ConfigError(NO_SHIFTS)
    if cfg.get("universal") and attack != "eot":
        raise ConfigError(f"universal={show(cfg['universal'])} attack={attack}: needs attack=eot")
    if cfg.get("universal") == "all" and cfg.get("target") in ("all", "untargeted"):
        raise ConfigError(
            f"universal=all target={cfg['target']}: one signal for all classes needs one target, "
            "A, N, O or noise"
        )
    from ecgadv.threat.transforms import window_samples

    read = reading_of(cfg)
    window = cfg.get("window")
    if window is not None:
        # The length of an input that only the model knows is checked when that is there.
        window_samples(window, read.n or sys.maxsize, read.fs)
    for section in ("filter", "evaluation"):
        node = cfg.get(section)
        if not isinstance(node, Mapping):
            continue
        mains = node.get("mains")
        for key, values in (("high_pass", [node.get("high_pass")]), ("mains", mains or [])):
            for value in values:
                if value is not None and not (_is_number(value) and 0 < value < read.fs / 2):
                    raise ConfigError(
                        f"{section}.{key}={show(node[key])}: must be above 0 and below half the "
                        f"sampling rate, {read.fs / 2:g} Hz"
                    )


def _check_limits(cfg: Mapping[str, Any]) -> None:
    """Band and mask of a perturbation: beyond half the sampling rate, gaps, nothing left."""
    node = cfg.get("attack")
    if cfg.get("task") != "attack" or not isinstance(node, Mapping):
        return
    band, mask, window = node.get("band"), node.get("mask"), cfg.get("window")
    read = reading_of(cfg)
    if band is not None and band[1] > read.fs / 2:
        raise ConfigError(
            f"attack.band={show(band)}: must end at half the sampling rate, {read.fs / 2:g} Hz, or "
            "below"
        )
    if mask is None:
        return
    spans = mask if isinstance(mask[0], list) else [mask]
    if band is not None and len(spans) > 1:
        raise ConfigError(
            f"attack.band={show(band)} attack.mask={show(mask)}: a signal within a band cannot "
            "have gaps; give one span, or no band"
        )
    first, lasts = min(span[0] for span in spans), (read.n or math.inf) / read.fs
    if window is not None:
        from ecgadv.threat.transforms import window_samples

        lasts = window_samples(window, read.n or sys.maxsize, read.fs) / read.fs
    if first >= lasts:
        raise ConfigError(
            f"attack.mask={show(mask)}: begins after the {lasts:g} s that "
            f"{'a record' if window is None else 'the window'} lasts at most"
        )


def reading_of(cfg: Mapping[str, Any]) -> Reading:
    """What the victim reads, as far as it is configured; the included ones say all of it."""
    from ecgadv.victims.declared import declared, is_included

    node = cfg.get("victim")
    read = declared(node if isinstance(node, Mapping) else {})
    if read.n is None and is_included(lookup(cfg, "victim.name")):
        return replace(read, n=read.seconds_30)
    return read


def victim_classes(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the victim's classes as command lines spell them, as far as it is configured."""
    from ecgadv.records.base import class_name
    from ecgadv.victims.declared import declared

    node = cfg.get("victim")
    if not isinstance(node, Mapping):
        return CLASS_NAMES
    return tuple(class_name(letter) for letter in declared(node).classes)


def _check_target(cfg: Mapping[str, Any]) -> None:
    if cfg.get("task") not in ("attack", "benchmark"):
        return
    known = ("all", *victim_classes(cfg), "untargeted")
    if cfg.get("target") not in (None, *known):
        raise ConfigError(f"target={cfg['target']}: must be one of {', '.join(known)}")


def _check_backend(cfg: Mapping[str, Any]) -> None:
    if cfg.get("task") not in ("attack", "evaluate"):
        return
    target, name = str(lookup(cfg, f"attack.{TARGET}")), lookup(cfg, "attack.name")
    if target.startswith("ecgadv.attacks.cleverhans.") and cfg.get("backend") != "tensorflow":
        raise BackendError(
            f"attack={name} backend={cfg.get('backend')}: cleverhans needs backend=tensorflow"
        )


def _check_selection(cfg: Mapping[str, Any]) -> None:
    from ecgadv.records.selection import Selection

    node = cfg.get("selection")
    if not isinstance(node, Mapping):
        return
    classes = tuple("~" if name == "noise" else name for name in victim_classes(cfg))
    selection = Selection.from_config(node, classes)
    file = node.get("file")
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"selection.file={file}: there is no such file")
    target = "~" if cfg.get("target") == "noise" else cfg.get("target")
    limits = selection.limits
    attacked = {c for c in selection.sources if limits[c] != 0}
    if not attacked:
        raise ConfigError(
            f"selection.source={show(node.get('source'))} selection.per_class="
            f"{show(node.get('per_class'))}: no record is left to attack"
        )
    if attacked == {target}:
        named = node.get("source") is not None
        option = "source" if named else "per_class"
        raise NothingToDoError(
            f"target={cfg['target']} selection.{option}={show(node.get(option))}: nothing to "
            "attack, the target is the class of every selected record"
        )


def _check_task(cfg: Mapping[str, Any]) -> None:
    task = cfg.get("task")
    for path in ("report.run", "evaluate.run", "track.run", "sweep"):
        folder = lookup(cfg, path)
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"{path}={folder}: there is no such folder")
    if task == "report" and bool(lookup(cfg, "report.run")) == bool(cfg.get("sweep")):
        raise ConfigError("task=report needs one of report.run=FOLDER (a run) and sweep=FOLDER")
    if cfg.get("shard") is not None:
        if task != "attack":
            raise ConfigError(f"shard={cfg['shard']} task={task}: only task=attack can be split")
        if cfg.get("resume") is False:
            raise ConfigError(
                f"shard={cfg['shard']} resume=false: all shards share one folder, resume must be "
                "true; paths.outputs names another place"
            )
    study = lookup(cfg, "evaluate.study")
    for path in ("evaluate.study", "evaluate.study_key"):
        place = lookup(cfg, path)
        if place is not None and not Path(place).exists():
            raise ConfigError(f"{path}={place}: there is no such file")
    if task == "evaluate" and not lookup(cfg, "evaluate.run") and not study:
        raise ConfigError(
            "task=evaluate needs evaluate.run=FOLDER (of an attack run) or evaluate.study=FILE"
        )
    if task == "evaluate" and lookup(cfg, "evaluate.study_key") and not study:
        raise ConfigError("evaluate.study_key needs evaluate.study=FILE (the answers)")
    if task == "track" and lookup(cfg, "tracking.name") == "none":
        raise ConfigError(
            "task=track tracking=none: must be tracking=mlflow, that is where it tracks"
        )
    if task == "train" and cfg["train"]["fold"] >= cfg["train"]["folds"]:
        fold, folds = cfg["train"]["fold"], cfg["train"]["folds"]
        raise ConfigError(f"train.fold={fold}: must be below train.folds={folds} (counted from 0)")
    if task == "train" and cfg["train"]["short_epochs"] >= cfg["train"]["epochs"]:
        short, epochs = cfg["train"]["short_epochs"], cfg["train"]["epochs"]
        raise ConfigError(f"train.short_epochs={short}: must be below train.epochs={epochs}")
    tracking = cfg.get("tracking")
    if isinstance(tracking, Mapping) and tracking.get("uri"):
        from ecgadv.tracking.uris import resolve_uri

        resolve_uri(tracking["uri"], Path(cfg["paths"]["root"]))


def _check_data(cfg: Mapping[str, Any]) -> None:
    if cfg.get("task") in ("report", "track"):
        return
    data = cfg.get("data")
    if not isinstance(data, Mapping) or not str(data.get(TARGET, "")).startswith("ecgadv."):
        return
    _check_wording(cfg, data)
    name, root = data.get("name"), data.get("root")
    kind = {"wfdb": "the folder of the records", "arrays": "the .npz or .csv file"}
    if root is None:
        if name in kind:
            raise DataError(f"data={name} needs data.root=…, {kind[name]}")
        return
    place = Path(root)
    if name == "synthetic":
        raise DataError(
            f"data.root={root}: data=synthetic reads no file, did you mean data=cinc2017?"
        )
    if not place.exists():
        raise DataError(f"data.root={root}: there is no such file or folder")
    if not os.access(place, os.R_OK):
        raise DataError(f"data.root={root}: no permission to read it")
    if place.is_file():
        from ecgadv.records.files import pointer

        why = pointer(place)
        if why:
            raise DataError(f"data.root={root} {why}")
    if name == "cinc2017" and place.is_file() and not zipfile.is_zipfile(place):
        raise DataError(f"data.root={root} is not a zip file; give the folder or the zip")
    if name == "wfdb" and not place.is_dir():
        raise DataError(f"data.root={root}: must be {kind['wfdb']}, not a file")
    if name == "arrays":
        if not place.is_file() or place.suffix.lower() not in (".npz", ".csv"):
            raise DataError(f"data.root={root}: must be an .npz or .csv file")
        if place.suffix.lower() == ".npz" and not zipfile.is_zipfile(place):
            raise DataError(f"data.root={root} is not an .npz file")


def _check_wording(cfg: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Units and labels of a data source: what is wrong with them needs no file to be read."""
    from ecgadv.records.base import class_letter
    from ecgadv.records.conversion import check_units
    from ecgadv.records.labels import check_label_map

    if data.get("units") is not None:
        check_units(str(data["units"]))
    if cfg.get("task") != "train":
        classes = tuple(class_letter(name) for name in victim_classes(cfg))
        check_label_map(data.get("label_map"), classes)


def _check_victim(cfg: Mapping[str, Any]) -> None:
    if cfg.get("task") not in ("attack", "evaluate", "benchmark"):
        return
    victim = cfg.get("victim")
    if not isinstance(victim, Mapping) or not str(victim.get(TARGET, "")).startswith("ecgadv."):
        return
    name, path = victim.get("name"), victim.get("path")
    if path is None:
        if name in ("keras", "torch"):
            example = "FILE.keras" if name == "keras" else "FILE.pt"
            raise VictimError(f"victim={name} needs victim.path={example}")
        return
    from ecgadv.victims.declared import is_function
    from ecgadv.victims.files import importable, refusal

    if name == "torch" and cfg.get("backend") != "torch":
        raise BackendError(f"victim=torch needs backend=torch, not backend={cfg.get('backend')}")
    for key in ("path", "preprocess"):
        if is_function(victim.get(key)) and not importable(str(victim[key])):
            module = str(victim[key]).partition(":")[0]
            raise VictimError(f"victim.{key}={victim[key]}: there is no module {module}")
    if is_function(path):
        return
    file = Path(path)
    if not file.exists():
        raise VictimError(f"victim.path={path}: there is no such file")
    why = refusal(file)
    if why:
        raise VictimError(f"victim.path={path}: {why}")
    if name == "torch":
        return
    suffix = file.suffix.lower()
    if suffix not in (".keras", ".h5", ".hdf5"):
        raise VictimError(f"victim.path={path}: must be a .keras, .h5 or .hdf5 file")
    with file.open("rb") as stream:
        is_hdf5 = stream.read(8) == b"\x89HDF\r\n\x1a\n"
    if not (zipfile.is_zipfile(file) if suffix == ".keras" else is_hdf5):
        raise VictimError(f"victim.path={path} is not a Keras model, whatever its name says")


def _check_folders(cfg: Mapping[str, Any]) -> None:
    for path in ("paths.root", "paths.outputs", "paths.data"):
        value = lookup(cfg, path)
        if value is not None:
            check_writable(Path(value), path)


def check_writable(folder: Path, option: str) -> None:
    """Raise :class:`ConfigError` where ``folder`` cannot be made or written; makes nothing."""
    if not os.path.lexists(folder):
        below = next(p for p in folder.parents if os.path.lexists(p))
    else:
        below = folder
    if not below.is_dir():
        raise ConfigError(f"{option}={folder}: {below} is a file, a folder is needed there")
    if not os.access(below, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}={folder}: no permission to write in {below}")


# --- names and signatures ------------------------------------------------------------------------


def signature(cfg: Mapping[str, Any]) -> str:
    """Digest of everything in a normalised configuration that changes results.

    Left out is :data:`NOT_IN_SIGNATURE` (for the tasks that read earlier runs, ``sweep``,
    ``report`` and ``track`` stay in). A victim or index file counts by its content, not its name.

    Returns:
        64 hexadecimal digits; folder names take the first 10.
    """
    task = cfg.get("task")
    kept = {k: v for k, v in cfg.items() if k not in NOT_IN_SIGNATURE}
    if task in ("report", "track"):
        kept = {k: cfg[k] for k in ("task", "sweep", "report", "track") if k in cfg}
    kept = copy.deepcopy(kept)
    for section, key in (("victim", "path"), ("selection", "file")):
        node = kept.get(section)
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = _file_digest(node[key])
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(earlier: Mapping[str, Any], cfg: Mapping[str, Any], most: int = 3) -> str:
    """How two configurations differ, as ``metric=l2, not diff``; "" where no value does."""
    old, new = (
        {
            path.removesuffix(".name"): value
            for path, value in leaves({k: v for k, v in c.items() if k not in NOT_IN_SIGNATURE})
            if not path.endswith(f".{TARGET}")
        }
        for c in (earlier, cfg)
    )
    keys = [k for k in [*new, *(k for k in old if k not in new)] if old.get(k) != new.get(k)]
    # A chosen option says more than the values that come with it.
    keys.sort(key=lambda k: "." in k)
    told = [f"{k}={show(old.get(k))}, not {show(new.get(k))}" for k in keys[:most]]
    more = f"; and {len(keys) - most} more" if len(keys) > most else ""
    return "; ".join(told) + more


def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
    except OSError:
        return path


def _name_parts(cfg: Mapping[str, Any]) -> dict[str, str]:
    task = str(cfg.get("task"))
    parts = {"task": task}
    if task in ("report", "track"):
        folder = lookup(cfg, "report.run") or lookup(cfg, "track.run") or cfg.get("sweep")
        return parts | ({"folder": Path(folder).name} if folder else {})
    groups = ["data", "victim"]
    if task == "train":
        groups = ["data"]
        parts["victim"] = str(lookup(cfg, "train.architecture"))
    elif task != "evaluate":
        groups += ["metric", "attack"]
    parts |= {g: str(lookup(cfg, f"{g}.name")) for g in groups}
    for key, usual in (("threat_model", "type1"), ("deployment", "cloud"), ("target", "all")):
        value = cfg.get(key)
        if task not in ("train", "evaluate") and value != usual:
            parts[key] = f"to-{value}" if key == "target" else str(value)
    return parts


def safe_name(name: str) -> str:
    """A name that any file system takes."""
    return re.sub(r"[^\w.-]+", "_", name)[:NAME_LIMIT]


def run_name(cfg: Mapping[str, Any]) -> str:
    """A readable name such as ``attack-synthetic-compact-l2-minnorm``; not unique by itself."""
    return safe_name("-".join(_name_parts(cfg).values()))


def run_folder(cfg: Mapping[str, Any]) -> Path:
    """Folder of a single run of a normalised configuration."""
    return Path(cfg["paths"]["outputs"]) / f"{run_name(cfg)}-{signature(cfg)[:10]}"


def shard_folder(cfg: Mapping[str, Any]) -> Path:
    """Folder of the share of a run that ``shard`` names, inside the run's own."""
    return run_folder(cfg) / "shards" / str(cfg["shard"]).replace("/", "-of-")


def sweep_name(configs: Sequence[Mapping[str, Any]], swept: Sequence[str]) -> str:
    """What all jobs share, then what differs: ``attack-synthetic-compact-minnorm-by-metric``."""
    parts = [_name_parts(c) for c in configs]
    shared = [v for k, v in parts[0].items() if all(p.get(k) == v for p in parts)]
    by = [key.rpartition(".")[2] if key.count(".") else key for key in swept]
    return safe_name("-".join([*shared, *(["by", *by] if by else [])]))
