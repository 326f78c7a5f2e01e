"""Checks of what a command line overrides, one override at a time."""

from __future__ import annotations

import contextlib
import importlib.util
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ecgadv.config import hydra_api
from ecgadv.config.check import victim_classes
from ecgadv.config.composer import Composer
from ecgadv.config.values import Config, normalise
from ecgadv.errors import ConfigError, EcgadvError
from ecgadv.making import OPEN_MAPPINGS, lookup
from ecgadv.spelling import show, suggestion


def settled(composer: Composer, overrides: Sequence[Any]) -> list[Any]:
    """Overrides with every ``shuffle`` and ``glob`` written out as the values that it gives.

    Hydra would draw another order than the one that was checked, and whose folders were named. The
    order follows from the text, so the same command finds its own folders again.
    """
    out = []
    for override in overrides:
        line, key = override.input_line, override.key_or_group
        text = line.partition("=")[2]
        if type(override.value()).__name__ == "Glob":
            options = composer.options(key) if "." not in key else []
            if not options:
                raise ConfigError(f"{line}: glob is for the options of a group; {key} is none")
            values = list(override.value().filter(options))
            if not values:
                raise ConfigError(f"{line}: no option of {key} matches ({', '.join(options)})")
        elif "shuffle(" in text:
            state = random.getstate()
            random.seed(text)
            try:
                again = hydra_api.parse_overrides([line])[0]
                swept = again.is_sweep_override()
                if swept and not again.is_discrete_sweep():
                    values = []
                elif swept:
                    values = list(again.sweep_string_iterator())
                else:
                    values = [again.get_value_element_as_str()]
            finally:
                random.setstate(state)
        else:
            values = []
        prefix = line.partition("=")[0]
        out += (
            hydra_api.parse_overrides([f"{prefix}={','.join(map(str, values))}"])
            if values
            else [override]
        )
    return out


_LAUNCHERS = {
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit_local": ("slurm", "hydra_submitit_launcher"),
    "submitit_slurm": ("slurm", "hydra_submitit_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}
"""Option of ``hydra/launcher`` -> extra that brings its plugin, and the plugin."""


def _check_launcher(name: str) -> None:
    """Raise where the plugin of a launcher is not installed."""
    if name not in _LAUNCHERS:
        return
    extra, plugin = _LAUNCHERS[name]
    found = None
    # The parent package is made of plugins: without any there is none.
    with contextlib.suppress(ModuleNotFoundError):
        found = importlib.util.find_spec(f"hydra_plugins.{plugin}")
    if found is None:
        raise ConfigError(f'hydra/launcher={name}: needs pip install "ecgadv[{extra}]"')


def check_override(composer: Composer, override: Any, groups: set[str]) -> bool:
    """Check the form of one override; returns whether it chooses an option of a group."""
    key, line = override.key_or_group, override.input_line
    values = hydra_api.values(override)
    if key.startswith("hydra/"):
        options = composer.options(key)
        for value in values:
            if key == "hydra/launcher":
                _check_launcher(str(value))
            if value is not None and options and str(value) not in options:
                raise ConfigError(
                    f"{key}={show(value)}: there is no such option"
                    f"{suggestion(str(value), options)} ({', '.join(options)})"
                )
        return False
    if override.is_hydra_override():
        return False
    if override.is_delete():
        raise ConfigError(f"{line}: nothing can be taken out; set {key}=null where that is allowed")
    if override.package is not None:
        raise ConfigError(f"{line}: write {key}=OPTION, without @")
    options = composer.options(key) if "." not in key else []
    if not options:
        return False
    if key in groups and (override.is_add() or override.is_force_add()):
        raise ConfigError(f"{line}: {key} is there already, leave the + out")
    if key not in groups and not override.is_add():
        raise ConfigError(f"{line}: {key} is an additional group, write +{line}")
    for value in values:
        if value is None and key == "experiment":
            continue
        if isinstance(value, dict):
            raise ConfigError(f"{line}: set one of its keys, as in {key}.KEY=VALUE")
        if isinstance(value, list):
            raise ConfigError(
                f"{key}={show(value)}: must be one option; to run several, -m "
                f"{key}={','.join(map(str, value))}"
            )
        if str(value) not in options and not composer.repository.config_exists(f"{key}/{value}"):
            hint = suggestion(str(value), options)
            raise ConfigError(
                f"{key}={show(value)}: there is no such option{hint} ({', '.join(options)})"
            )
    return True


def offer_classes(composer: Composer, parsed: Sequence[Any]) -> None:
    """Make options of the group ``target`` out of the victim's own classes, where one is named."""
    options = composer.options("target")
    wanted = {
        str(value)
        for override in parsed
        if override.key_or_group == "target"
        for value in hydra_api.values(override)
        if value is not None and str(value) not in options
    }
    if not wanted:
        return
    from hydra.core.config_store import ConfigStore

    victim = [
        o.input_line
        for o in parsed
        if o.key_or_group.partition(".")[0] == "victim" and not o.is_sweep_override()
    ]
    try:
        known = victim_classes(normalise(composer.plain(composer.compose(victim))))
    except EcgadvError:
        return  # The checks that follow say what is wrong, and where.
    for name in sorted(wanted & set(known)):
        ConfigStore.instance().store(
            name=name, node={"target": name}, group="target", package="_global_"
        )
    # Hydra replaces its store when it composes, so what was looked up before is out of date.
    composer.__dict__.pop("repository", None)


def check_key(composer: Composer, override: Any, known: Config) -> None:
    """Refuse a value override whose key the chosen options do not have."""
    path = override.key_or_group
    node: Any = known
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            break
        node = node[part]
    else:
        if override.is_add():
            raise ConfigError(f"{override.input_line}: {path} is there already, leave the + out")
        if isinstance(node, Mapping) and path not in OPEN_MAPPINGS:
            raise ConfigError(f"{override.input_line}: set one of its keys, {path}.KEY=VALUE")
        return
    inside = any(path.startswith(f"{mapping}.") for mapping in OPEN_MAPPINGS)
    if inside and lookup(known, path.rpartition(".")[0]) is not None:
        if isinstance(node, Mapping):
            return
        parent, _, last = path.rpartition(".")
        raise ConfigError(f"{override.input_line}: write {parent}={{{last}:VALUE,…}}")
    raise ConfigError(composer.unknown(path, known))


def implied(own: Sequence[Any]) -> list[str]:
    """Records chosen by name or by an index file are all meant, whatever the option's limit."""
    given = {o.key_or_group: o for o in own if not o.is_delete()}
    chosen = [given[k] for k in ("selection.records", "selection.file") if k in given]
    if "selection.per_class" in given or not any(
        v is not None for o in chosen for v in hydra_api.values(o)
    ):
        return []
    return ["selection.per_class=null"]
