"""Configuration: composing it, checking all of a command line, and making objects from it.

Everything here runs before anything heavy is imported, so a mistake on the command line costs a
second and one line. ``python -m ecgadv.config --docs`` writes the reference of all options.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import random
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, cast

from ecgadv.errors import ConfigError, EcgadvError, NothingToDoError
from ecgadv.names import LABELS, NAMES, check_names, keep_names, names_in_files, quote
from ecgadv.schema import (
    NAME_LIMIT,
    OPEN_MAPPINGS,
    TARGET,
    TASKS,
    Config,
    check_writable,
    differences,
    leaves,
    lookup,
    normalise,
    run_folder,
    run_name,
    safe_name,
    shard_folder,
    show,
    signature,
    suggestion,
    sweep_name,
    validate,
    victim_classes,
)

__all__ = [
    "Composed",
    "Job",
    "compose_checked",
    "conf_dir",
    "differences",
    "instantiate",
    "normalise",
    "run_folder",
    "run_name",
    "shard_folder",
    "signature",
    "validate",
]


NO_HYDRA_FILES = "hydra.output_subdir=null"
"""Keeps Hydra from writing ``.hydra`` into a folder before it is known whose results it holds."""


def conf_dir() -> Path:
    """The shipped configuration: inside the installed package, else beside it in a checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "conf"
    return inside if (inside / "config.yaml").is_file() else here.parent / "conf"


@dataclass(frozen=True)
class Job:
    """One configuration of a run or of a sweep: its overrides, normalised values and digest.

    ``number`` counts the jobs of a sweep in the order in which Hydra starts them.
    """

    overrides: tuple[str, ...]
    config: Config
    signature: str
    number: int = 0


@dataclass(frozen=True)
class Composed:
    """A checked command line.

    Attributes:
        config: normalised configuration (of the first job, in a sweep).
        overrides: overrides of the command line, and those that follow from them.
        is_multirun: whether Hydra sweeps.
        name: readable name of the run or of the sweep.
        signature: of the configuration, or of all jobs of the sweep in order.
        folder: absolute output folder of the run or of the sweep.
        jobs: all configurations; one in a run, none checked where the sweeper is not Hydra's own.
        extra: Hydra overrides that put the results into ``folder``.
        shown_only: nothing runs (``--cfg``, ``--info``): values were not checked.
        launcher: settings of what starts the jobs of a sweep.
        notes: what the person should be told before anything runs.
        n_jobs: jobs that Hydra starts, those that have nothing to do included.
    """

    config: Config
    overrides: tuple[str, ...]
    is_multirun: bool
    name: str
    signature: str
    folder: Path
    jobs: tuple[Job, ...]
    extra: tuple[str, ...]
    shown_only: bool
    launcher: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    n_jobs: int = 0


def _usage_error(message: str) -> NoReturn:
    raise ConfigError(f"{message} (see --help)")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in any order.

    Raises:
        ConfigError: an unknown flag, or one that does not go with another.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _usage_error  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(list(argv))
    if args.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun reads a pickle, which can run any code: refused")
    shown = [f for f in ("cfg", "info") if getattr(args, f) is not None]
    chosen = [*shown, *(f for f in ("run", "multirun", "shell_completion") if getattr(args, f))]
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1].replace('_', '-')}: only one of them")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve goes with --cfg")
    if args.config_name not in (None, "config"):
        raise ConfigError(f"--config-name={args.config_name}: there is only config")
    if args.config_path is not None:
        raise ConfigError("--config-path: add your own options with --config-dir instead")
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir={args.config_dir}: there is no such folder")
    return args


def _one_line(error: BaseException) -> str:
    """Message of a Hydra, OmegaConf or YAML error, without its further lines' advice."""
    text = str(error)
    cause = error.__cause__ or error.__context__
    if not text.strip() and cause is not None:
        text = str(cause)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    drop = ("See https", "full_key:", "object_type=", "reference_type=", "Available options")
    kept = [line for line in lines if line and not line.startswith(drop)]
    key = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("full_key")), ""
    )
    said = "; ".join(kept)[:400] or type(error).__name__
    if "Incompatible key type" in said:
        said += "; put the key in quotes, and write noise for the class ~"
    return f"{key}: {said}" if key and key not in said else said


@contextlib.contextmanager
def _missing_search_paths() -> Iterator[None]:
    """Make an error of Hydra's warning about a search path that leads nowhere."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        found = re.search(r"path=(.*?) is not available", str(warning.message), re.S)
        if found:
            raise ConfigError(f"hydra.searchpath: {found[1]}: there is no such folder")


class _Composer:
    """Hydra's compose API on our configuration, with everything that can go wrong as one line."""

    def __init__(self, searchpath: Sequence[str]) -> None:
        self.searchpath = list(searchpath)
        self._composed: dict[tuple[str, ...], Any] = {}
        self._baselines: dict[tuple[str, ...], tuple[Config, Config]] = {}

    def compose(self, overrides: Sequence[str]) -> Any:
        """Full composition, ``hydra`` node included; not to be changed, since it is kept."""
        key = tuple(overrides)
        if key not in self._composed:
            self._composed[key] = self._compose(key)
        return self._composed[key]

    def _compose(self, overrides: Sequence[str]) -> Any:
        from hydra import compose

        with _missing_search_paths():
            try:
                return compose("config", [*self.searchpath, *overrides], return_hydra_config=True)
            except Exception as error:
                raise ConfigError(self._explain(error)) from None

    def _explain(self, error: Exception) -> str:
        key = re.match(r"Could not override '(hydra\.[\w.]+)'", str(error))
        if key is None:
            return _one_line(error)
        from omegaconf import OmegaConf

        node = OmegaConf.to_container(self.compose([]).hydra, resolve=False)
        known = [f"hydra.{path}" for path, _ in leaves(cast("Config", node))]
        return f"{key[1]}: there is no such key{suggestion(key[1], known)}"

    def plain(self, cfg: Any) -> Config:
        """The task's part of a composition as plain dicts, interpolations resolved."""
        from omegaconf import OmegaConf

        body = {key: cfg._get_node(key) for key in cfg if key != "hydra"}
        out: Config = {}
        try:
            for key, node in body.items():
                out[str(key)] = (
                    OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
                    if OmegaConf.is_config(node)
                    else cfg[key]
                )
        except Exception as error:
            raise ConfigError(_one_line(error)) from None
        return out

    @functools.cached_property
    def repository(self) -> Any:
        """Hydra's view of all config groups, those of the search path included."""
        from hydra.core.global_hydra import GlobalHydra

        loader: Any = GlobalHydra.instance().config_loader()
        with _missing_search_paths():
            # Hydra's own list of options leaves the search path of the command line out.
            return loader._parse_overrides_and_create_caching_repo("config", self.searchpath)[1]

    def groups(self) -> set[str]:
        """Groups of which an option is always chosen (or null)."""
        listed = self.repository.load_config("config").defaults_list
        return {d.group for d in listed if getattr(d, "group", None) and not d.is_override()}

    def options(self, group: str) -> list[str]:
        """Options of a group; empty where there is no such group."""
        from hydra.core.object_type import ObjectType

        if not self.repository.group_exists(group):
            return []
        return sorted(set(self.repository.get_group_options(group, ObjectType.CONFIG)))

    def baseline(self, groups: tuple[str, ...]) -> tuple[Config, Config]:
        """Compositions of the chosen options only: with the experiment's values, and without."""
        if groups not in self._baselines:
            chosen = self.compose(groups)
            plain = self.plain(chosen)
            choices = chosen.hydra.runtime.choices
            bare = plain
            if choices.get("experiment") is not None:
                added = [g for g in groups if g.startswith("+")]
                fixed = [
                    f"{group}={option}"
                    for group, option in choices.items()
                    if not group.startswith("hydra/")
                    and group != "experiment"
                    and not any(a.startswith(f"+{group}=") for a in added)
                ]
                bare = self.plain(self.compose([*fixed, *added]))
                self._refuse_unknown(plain, bare, f"experiment={choices['experiment']}: ")
            self._baselines[groups] = (plain, bare)
        return self._baselines[groups]

    def spelt(self, cfg: Any, own: Sequence[Any]) -> list[str]:
        """Overrides with the names of yaml files as these spell them, where YAML reads numbers."""
        runtime, values = cfg.hydra.runtime, self.plain(cfg)
        places = [Path(s["path"]) for s in runtime.config_sources if s["schema"] == "file"]
        chosen = [f"{group}/{option}.yaml" for group, option in runtime.choices.items()]
        files = [place / name for place in places for name in ("config.yaml", *chosen)]
        lines, named = [], {o.key_or_group for o in own}
        for path in (*NAMES, LABELS):
            value = lookup(values, path)
            if path in named or not value or isinstance(value, str):
                continue
            if all(isinstance(item, str) for item in value):
                continue
            written = names_in_files(files, path, value)
            if path == LABELS:
                check_names(path, value, written)
            elif written is not None and written != [str(item) for item in value]:
                lines.append(f"{path}=[{','.join(map(quote, written))}]")
        return lines

    def _refuse_unknown(self, cfg: Config, known: Config, where: str = "") -> None:
        names = dict(leaves(known))
        for path, _ in leaves(cfg):
            if path not in names and not any(path.startswith(f"{m}.") for m in OPEN_MAPPINGS):
                parent = path.rpartition(".")[0]
                if parent in names and names[parent] is None:
                    continue
                raise ConfigError(f"{where}{self.unknown(path, known)}")

    def unknown(self, path: str, known: Config) -> str:
        """Says that a key is unknown, and which was probably meant."""
        names = [p for p, _ in leaves(known) if not p.endswith((f".{TARGET}", ".name"))]
        group = path.partition(".")[0]
        option = lookup(known, f"{group}.name")
        if group in TASKS and group not in known:
            return f"{path}: there is no such key without task={group}"
        where = f"{group}={option} has" if "." in path and option else "there is"
        return f"{path}: {where} no such key{suggestion(path, [*names, *known])}"

    def job(
        self, overrides: Sequence[str], groups: tuple[str, ...], check: bool
    ) -> tuple[Any, Job]:
        """Compose, normalise and (where something will run) check one configuration."""
        plain, bare = self.baseline(groups)
        cfg = self.compose(overrides)
        values = self.plain(cfg)
        for path in NAMES:
            if lookup(values, path) is not None:
                check_names(path, lookup(values, path), None)
        self._refuse_unknown(values, bare)
        config = normalise(values)
        if check:
            validate(config, plain)
            _try_options(config)
        return cfg, Job(tuple(overrides), config, signature(config))


def _try_options(config: Config) -> None:
    """Make the metric and the solver, which know the ranges of their options and are light."""
    for group in ("metric", "attack"):
        if str(lookup(config, f"{group}.{TARGET}")).startswith("ecgadv."):
            instantiate(config[group])


def _parse_overrides(lines: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    out = []
    for line in lines:
        try:
            out += parser.parse_overrides([line])
        except Exception as error:
            key, equals, value = line.partition("=")
            if not equals and not line.startswith("~"):
                raise ConfigError(f"{line}: must be written as key=value") from None
            if re.search(r"~(?!/)", value):
                raise ConfigError(f"{line}: cannot be read; write noise for the class ~") from None
            where = _one_line(error).split(";")[0]
            raise ConfigError(
                f"{line}: cannot be read; put quotes around the value, as in \"{key}='…'\""
                + ("" if "Viable" in where else f" ({where})")
            ) from None
        if not out[-1].key_or_group:
            raise ConfigError(f"{line}: must be written as key=value")
    return out


def _values(override: Any) -> list[Any]:
    if not override.is_sweep_override():
        return [override.value()]
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else []


def _settled(composer: _Composer, overrides: Sequence[Any]) -> list[Any]:
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
                again = _parse_overrides([line])[0]
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
            _parse_overrides([f"{prefix}={','.join(map(str, values))}"]) if values else [override]
        )
    return out


def _refuse_twins(jobs: Sequence[Job]) -> None:
    """Raise where two jobs of a sweep are the same: their cases would count twice."""
    seen: dict[str, int] = {}
    for number, job in enumerate(jobs):
        text = json.dumps(job.config, sort_keys=True, default=str)
        if text in seen:
            raise ConfigError(
                f"jobs {seen[text]} and {number} of the sweep are the same "
                f"({' '.join(job.overrides)[:200]}): give each value once"
            )
        seen[text] = number


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


def _check_override(composer: _Composer, override: Any, groups: set[str]) -> bool:
    """Check the form of one override; returns whether it chooses an option of a group."""
    key, line = override.key_or_group, override.input_line
    values = _values(override)
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


def _offer_classes(composer: _Composer, parsed: Sequence[Any]) -> None:
    """Make options of the group ``target`` out of the victim's own classes, where one is named."""
    options = composer.options("target")
    wanted = {
        str(value)
        for override in parsed
        if override.key_or_group == "target"
        for value in _values(override)
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


def _check_key(composer: _Composer, override: Any, known: Config) -> None:
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


def compose_checked(argv: Sequence[str]) -> Composed:
    """Compose a command line and check all of it, every job of a sweep included.

    Args:
        argv: arguments without the program's name: Hydra's flags and overrides.

    Returns:
        The checked configuration and where its results go. Nothing is written.

    Raises:
        EcgadvError: anything is wrong; the message is one line that names the option.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    args = parse_arguments(argv)
    args.overrides = [keep_names(line) for line in args.overrides]
    parsed = _parse_overrides(args.overrides)
    before = GlobalHydra.instance().hydra
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return _compose_checked(args, parsed)
    finally:
        GlobalHydra.instance().hydra = before


def _search_path(args: argparse.Namespace, parsed: Sequence[Any]) -> list[str]:
    paths = [o.value() for o in parsed if o.get_key_element() == "hydra.searchpath"]
    path = list(paths[0]) if paths and isinstance(paths[0], list) else []
    if args.config_dir is not None:
        path.insert(0, f"file://{Path(args.config_dir).absolute()}")
    return [f"hydra.searchpath=[{','.join(quote(str(p)) for p in path)}]"] if path else []


def _compose_checked(args: argparse.Namespace, parsed: list[Any]) -> Composed:
    from omegaconf import OmegaConf

    composer = _Composer(_search_path(args, parsed))
    shown_only = args.cfg is not None or args.info is not None
    hydra_lines = [
        o.input_line
        for o in parsed
        if o.is_hydra_override() and o.get_key_element() != "hydra.searchpath"
    ]
    parsed = _settled(composer, parsed)
    own = [o for o in parsed if not o.is_hydra_override()]
    given_lines = [o.input_line for o in parsed]
    primary = composer.groups()
    _offer_classes(composer, parsed)
    is_group = {id(o): _check_override(composer, o, primary) for o in parsed}
    implied = _implied(own)
    own += _parse_overrides(implied)

    fixed = [o for o in own if not o.is_sweep_override()]
    base = composer.compose(
        [*hydra_lines, *(o.input_line for o in fixed if is_group.get(id(o), False))]
    )
    spelt = composer.spelt(base, own)
    implied += spelt
    own += _parse_overrides(spelt)
    is_multirun = bool(args.multirun) or str(base.hydra.mode or "").endswith("MULTIRUN")
    is_multirun = is_multirun and not shown_only
    swept = [o for o in own if o.is_sweep_override()]
    if swept and not is_multirun:
        line = swept[0].input_line
        raise ConfigError(
            f"{line}: several values; add -m to run each of them"
            + ("" if is_group.get(id(swept[0])) else ", or put a list in [ ]")
        )
    params: list[Any] = []
    if is_multirun:
        given = OmegaConf.select(base, "hydra.sweeper.params") or {}
        read = [f"{k}={v}" for k, v in given.items()]
        params = _settled(composer, _parse_overrides([keep_names(line) for line in read]))
        named = {o.get_key_element() for o in own}
        # The sweeper reads its own file; what is meant otherwise is said again here.
        given_lines += [
            param.input_line
            for param, was in zip(params, read, strict=True)
            if param.input_line != was and param.get_key_element() not in named
        ]
        for param in params:
            is_group[id(param)] = _check_override(composer, param, primary)
        swept += [p for p in params if p.is_sweep_override() and p.get_key_element() not in named]

    everything = [*params, *own]
    combinations, expandable = _combinations(everything, base, is_multirun)
    is_group_key = {o.get_key_element() for o in everything if is_group.get(id(o), False)}
    cfg, jobs, notes = base, [], []
    nothing: NothingToDoError | None = None
    for number, lines in enumerate(combinations):
        groups = tuple(line for line in lines if line.partition("=")[0] in is_group_key)
        known = composer.baseline(groups)[1]
        for override in everything:
            if not is_group.get(id(override), False):
                _check_key(composer, override, known)
        try:
            cfg, job = composer.job([*hydra_lines, *lines], groups, not shown_only)
        except NothingToDoError as error:
            if not is_multirun or len(combinations) == 1:
                raise
            notes.append(f"{error}: this job is left out")
            nothing = error
            continue
        jobs.append(replace(job, number=number))
    if nothing is not None and not jobs:
        raise nothing
    if expandable and is_multirun:
        _refuse_twins(jobs)

    keys = list(dict.fromkeys(o.key_or_group for o in swept))
    if not is_multirun:
        name, digest = run_name(jobs[0].config), jobs[0].signature
    else:
        experiment = base.hydra.runtime.choices.get("experiment")
        name = (
            safe_name(str(experiment)) if experiment else sweep_name([j.config for j in jobs], keys)
        )
        content = [j.signature for j in jobs]
        if not expandable:
            content += sorted(o.input_line for o in everything)
        digest = hashlib.sha256("\n".join(content).encode()).hexdigest()
    folder, extra, moved = _place(cfg, hydra_lines, jobs, name, digest, is_multirun)
    notes += [moved] if moved else []
    if is_multirun:
        extra += _job_folders(everything, keys, combinations, hydra_lines)
    if not shown_only:
        check_writable(folder, "hydra.sweep.dir" if is_multirun else "hydra.run.dir")
    return Composed(
        jobs[0].config,
        (*given_lines, *implied),
        is_multirun,
        name,
        digest,
        folder,
        tuple(jobs) if expandable else (),
        tuple(extra),
        shown_only,
        _launcher(base),
        tuple(notes),
        len(combinations) if expandable else 0,
    )


def _launcher(cfg: Any) -> dict[str, Any]:
    """The launcher's settings as they stand; what refers to a job's folder stays unresolved."""
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg.hydra.launcher, resolve=False))


def _implied(own: Sequence[Any]) -> list[str]:
    """Records chosen by name or by an index file are all meant, whatever the option's limit."""
    given = {o.key_or_group: o for o in own if not o.is_delete()}
    chosen = [given[k] for k in ("selection.records", "selection.file") if k in given]
    if "selection.per_class" in given or not any(v is not None for o in chosen for v in _values(o)):
        return []
    return ["selection.per_class=null"]


def _combinations(
    everything: Sequence[Any], base: Any, is_multirun: bool
) -> tuple[list[list[str]], bool]:
    """Override lists of all jobs, and whether they are all that will run."""
    if not is_multirun:
        return [[o.input_line for o in everything]], True
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    target = str(base.hydra.sweeper.get(TARGET, ""))
    if not target.endswith(".BasicSweeper"):
        # Another sweeper chooses values as it goes; each job checks its own.
        return [[o.input_line for o in everything if not o.is_sweep_override()]], False
    for override in everything:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            line = override.input_line
            raise ConfigError(f"{line}: Hydra's own sweeper needs single values or a range")
    return BasicSweeper.split_arguments(list(everything), None)[0], True


def _place(
    cfg: Any, hydra_lines: Sequence[str], jobs: Sequence[Job], name: str, digest: str, sweep: bool
) -> tuple[Path, list[str], str]:
    """The output folder, the Hydra overrides that name it, and a note where it is a fresh one."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    note = ""
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    paths = jobs[0].config["paths"]
    own = any(line.lstrip("+").startswith(f"{key}=") for line in hydra_lines)
    if not sweep and jobs[0].config.get("shard") is not None and own:
        shard = jobs[0].config["shard"]
        raise ConfigError(f"shard={shard} {key}=…: all shards share one folder, in paths.outputs")
    if own:
        # A folder of the user's own, resolved once so that every part agrees on it.
        previous = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(cfg)
        try:
            folder = Path.cwd() / str(OmegaConf.select(cfg, key))
        except Exception as error:
            raise ConfigError(f"{key}: {_one_line(error)}") from None
        finally:
            HydraConfig.instance().cfg = previous
        # A new folder of the same name is what resume=false means everywhere.
        if not jobs[0].config["resume"] and folder.is_dir() and any(folder.iterdir()):
            taken, folder = folder, _fresh(folder)
            note = f"{taken} is not empty: with resume=false the results go to {folder}"
    else:
        parent = Path(paths["root"]) / "multirun_outputs" if sweep else Path(paths["outputs"])
        folder = parent / f"{name}-{digest[:10]}"
        if not sweep and jobs[0].config.get("shard") is not None:
            folder = shard_folder(jobs[0].config)
        if not jobs[0].config["resume"]:
            folder = _fresh(folder)
    extra = [f"{key}={quote(str(folder))}"]
    if not any(line.lstrip("+~").startswith("hydra.output_subdir") for line in hydra_lines):
        extra.append(NO_HYDRA_FILES)
    return folder, extra, note


def _fresh(folder: Path) -> Path:
    """``folder``, or the first of ``folder-2``, ``folder-3``, … that does not exist."""
    candidate, number = folder, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _job_folders(
    everything: Sequence[Any],
    swept: Sequence[str],
    combinations: Sequence[Sequence[str]],
    hydra_lines: Sequence[str],
) -> list[str]:
    """Hydra overrides that name a job's folder by its number and its swept values."""
    if any(line.lstrip("+").startswith("hydra.sweep.subdir=") for line in hydra_lines):
        return []
    kept, length = [], 0
    for key in swept:
        texts = [line for c in combinations for line in c if line.lstrip("+").startswith(f"{key}=")]
        longest = max((len(t) for t in texts), default=NAME_LIMIT)
        # A value with a slash or a space in it would not make one plain folder name.
        plain = texts and all(re.fullmatch(r"[\w.+=,\[\]:{}-]+", t) for t in texts)
        if plain and length + longest <= NAME_LIMIT:
            kept.append(key)
            length += longest + 1
    excluded = sorted({o.key_or_group for o in everything} - set(kept))
    subdir = "${hydra.job.num}" + ("_${hydra.job.override_dirname}" if kept else "")
    return [
        f"hydra.sweep.subdir='{subdir}'",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(quote(k) for k in excluded)}]",
    ]


def instantiate(node: Mapping[str, Any], **extra: Any) -> Any:
    """Call what ``_target_`` names with the node's other keys as keyword arguments.

    Args:
        node: an option of a group; its ``name`` is not passed on.
        **extra: further arguments; they win over those of the node.

    Raises:
        ConfigError: the target cannot be imported, cannot be called, or does not know an argument.
    """
    target = node.get(TARGET)
    label = f"{TARGET}={target}"
    if not isinstance(target, str) or not all(p.isidentifier() for p in target.split(".")):
        raise ConfigError(f"{label}: must be a dotted name such as package.module.Class")
    module_name, _, attribute = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{label}: must be a dotted name such as package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(f"{label}: cannot import {module_name} ({_one_line(error)})") from error
    if not hasattr(module, attribute):
        raise ConfigError(
            f"{label}: {module_name} has no {attribute}{suggestion(attribute, dir(module))}"
        )
    call = getattr(module, attribute)
    if not callable(call):
        raise ConfigError(f"{label}: must be a class or a function")
    arguments = {k: v for k, v in node.items() if k not in (TARGET, "name")} | extra
    parameters: Mapping[str, inspect.Parameter] = {}
    # Some callables written in C have no signature; they check for themselves.
    with contextlib.suppress(TypeError, ValueError):
        parameters = inspect.signature(call).parameters
    if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            if key not in parameters:
                raise ConfigError(f"{label}: takes no {key}{suggestion(key, parameters)}")
    missing = [
        name
        for name, p in parameters.items()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and name not in arguments
    ]
    if missing:
        raise ConfigError(f"{label}: needs {', '.join(missing)}")
    return call(**arguments)


if __name__ == "__main__":
    from ecgadv.reference import reference

    if sys.argv[1:] != ["--docs"]:
        raise SystemExit("usage: python -m ecgadv.config --docs > docs/configuration.md")
    # The page is UTF-8 whatever the terminal shows.
    sys.stdout.buffer.write(reference(conf_dir()).encode())
