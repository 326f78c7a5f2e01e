"""Checks of all values of a configuration, and of the files that it names.

Nothing heavy is imported, and nothing of Hydra: a configuration is a plain nested dict here.
"""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ecgadv import options
from ecgadv.config.experiment import accepted, is_foreign
from ecgadv.config.place import check_writable
from ecgadv.errors import BackendError, ConfigError, NothingToDoError, VictimError
from ecgadv.making import NO_ARGUMENTS, OPEN_MAPPINGS, TARGET, instantiate, leaves, lookup, resolve
from ecgadv.spelling import show

if TYPE_CHECKING:
    from ecgadv.victims.declared import Reading


def validate(cfg: Mapping[str, Any], like: Mapping[str, Any] | None = None) -> None:
    """Check all values of a normalised configuration, and the files that it names.

    Args:
        cfg: see :func:`normalise`.
        like: the same composition without value overrides; gives the type of keys that
            nothing of ours declares.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or contradicts another one.
        DataError: ``data.root`` is missing or of the wrong kind.
        VictimError: ``victim.path`` is missing or no model file.
    """
    default, known = dict(leaves(like or {})), accepted(cfg)
    for path, hint in known.items():
        value = lookup(cfg, path)
        if isinstance(value, Mapping) and path not in OPEN_MAPPINGS:
            raise ConfigError(f"{path}={show(value)}: must be {options.wanted(hint)}")
    for path, value in leaves(cfg):
        usual = default.get(path)
        own = is_foreign(cfg.get(path.partition(".")[0])) and options.is_number(usual)
        if own and (value is None or options.is_number(value)):
            continue  # The annotation of somebody's own class, read later, may take fractions.
        hint = known.get(path, options.like(usual))
        if hint is not None:
            options.check(path, hint, value)
    _check_victim(cfg)
    _check_target(cfg)
    _check_backend(cfg)
    _check_benchmark(cfg)
    _check_injection(cfg)
    _check_objects(cfg)
    _check_selection(cfg)
    _check_task(cfg)
    _check_data(cfg)
    _check_folders(cfg)


def check_foreign(cfg: Mapping[str, Any]) -> None:
    """Check the options of classes and functions that are not ours, by what they declare.

    They may import a backend, so this comes when the run has chosen one.

    Raises:
        ConfigError: one of them cannot be imported, or a value is not what its annotation wants.
    """
    for section, node in cfg.items():
        if is_foreign(node):
            values = {k: v for k, v in node.items() if k not in NO_ARGUMENTS}
            options.check_all(resolve(node), values, section)


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
            f"one of {', '.join(victim_classes(cfg))}"
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
                if value is not None and not (options.is_number(value) and 0 < value < read.fs / 2):
                    raise ConfigError(
                        f"{section}.{key}={show(node[key])}: must be above 0 and below half the "
                        f"sampling rate, {read.fs / 2:g} Hz"
                    )


def _check_benchmark(cfg: Mapping[str, Any]) -> None:
    """A benchmark compares edits of recordings that are read as they are stored."""
    if cfg.get("task") != "benchmark":
        return
    for path, usual in (("threat_model", "type1"), ("deployment", "cloud"), ("eot.name", "none")):
        value = lookup(cfg, path)
        if value not in (None, usual):
            option = path.removesuffix(".name")
            raise ConfigError(
                f"task=benchmark {option}={value}: it compares edited recordings, read as they are "
                f"stored: {option}={usual}"
            )


def _check_objects(cfg: Mapping[str, Any]) -> None:
    """Make what is light: it knows what its options have to do with each other."""
    made = {}
    for group in ("metric", "attack", "goal"):
        if TARGET in (node := cfg.get(group) or {}) and not is_foreign(node):
            made[group] = instantiate(node)
    attack: Any = made.get("attack")
    if cfg.get("task") == "attack" and hasattr(attack, "check"):
        from ecgadv.threat.goals import Exclusive

        goal = made.get("goal", Exclusive())
        shifts = int(lookup(cfg, "eot.shifts") or 0)
        attack.check(goal, shifts, cfg.get("threat_model") == "type2")
    if cfg.get("task") not in ("attack", "benchmark") or not hasattr(attack, "limits_for"):
        return
    read, window, mask = reading_of(cfg), cfg.get("window"), getattr(attack, "mask", None)
    attack.limits_for(read.fs, read.leads or 1)
    if mask is None:
        return
    from ecgadv.threat.limits import spans_of
    from ecgadv.threat.transforms import window_samples

    lasts = (read.n or math.inf) / read.fs
    if window is not None:
        lasts = window_samples(window, read.n or sys.maxsize, read.fs) / read.fs
    if spans_of(mask)[0][0] >= lasts:
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
    read = declared(node if isinstance(node, Mapping) else {})
    return tuple(class_name(letter) for letter in read.classes)


def _check_target(cfg: Mapping[str, Any]) -> None:
    if cfg.get("task") not in ("attack", "benchmark"):
        return
    known = ("all", *victim_classes(cfg), "untargeted")
    if cfg.get("target") not in (None, *known):
        raise ConfigError(f"target={cfg['target']}: must be one of {', '.join(known)}")


def _check_backend(cfg: Mapping[str, Any]) -> None:
    if cfg.get("task") not in ("attack", "evaluate", "benchmark"):
        return
    node = cfg.get("attack")
    if not isinstance(node, Mapping) or is_foreign(node):
        return
    kind = resolve(node)
    backends = getattr(kind, "backends", ())
    if backends and cfg.get("backend") not in backends:
        raise BackendError(
            f"attack={node.get('name')} backend={cfg.get('backend')}: "
            f"{kind.__module__.rpartition('.')[2]} needs backend={' or '.join(backends)}"
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
    if task == "benchmark":
        from ecgadv.threat.metrics import METRICS

        # A metric of one's own is known by being the configuration's.
        named = [*METRICS, *({lookup(cfg, "metric.name")} - {*METRICS, None})]
        if not set(cfg["benchmark"]["metrics"]) <= set(named):
            shown = show(cfg["benchmark"]["metrics"])
            raise ConfigError(f"benchmark.metrics={shown}: must be a list of {', '.join(named)}")
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
    if task == "train":
        from ecgadv.victims.architectures import ARCHITECTURES
        from ecgadv.victims.training import TrainSettings

        options.check("train.architecture", Literal[*ARCHITECTURES], cfg["train"]["architecture"])
        TrainSettings(**cfg["train"])
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
    kind = sys.modules[resolve(data).__module__]
    if hasattr(kind, "ROOT"):
        kind.ROOT.check(data.get("name"), data.get("root"))


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
