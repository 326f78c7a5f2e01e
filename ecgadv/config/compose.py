"""A command line, composed and checked as a whole, every job of a sweep included."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ecgadv.config import hydra_api
from ecgadv.config.composer import Composer, conf_dir
from ecgadv.config.names import keep_names, quote
from ecgadv.config.overrides import check_key, check_override, implied, offer_classes, settled
from ecgadv.config.place import (
    Job,
    check_writable,
    job_folders,
    place,
    run_name,
    safe_name,
    sweep_name,
)
from ecgadv.config.values import Config
from ecgadv.errors import ConfigError, NothingToDoError
from ecgadv.making import TARGET


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

    args = hydra_api.parse_arguments(argv)
    args.overrides = [keep_names(line) for line in args.overrides]
    parsed = hydra_api.parse_overrides(args.overrides)
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

    composer = Composer(_search_path(args, parsed))
    shown_only = args.cfg is not None or args.info is not None
    hydra_lines = [
        o.input_line
        for o in parsed
        if o.is_hydra_override() and o.get_key_element() != "hydra.searchpath"
    ]
    parsed = settled(composer, parsed)
    own = [o for o in parsed if not o.is_hydra_override()]
    given_lines = [o.input_line for o in parsed]
    primary = composer.groups()
    offer_classes(composer, parsed)
    is_group = {id(o): check_override(composer, o, primary) for o in parsed}
    following = implied(own)
    own += hydra_api.parse_overrides(following)

    fixed = [o for o in own if not o.is_sweep_override()]
    base = composer.compose(
        [*hydra_lines, *(o.input_line for o in fixed if is_group.get(id(o), False))]
    )
    spelt = composer.spelt(base, own)
    following += spelt
    own += hydra_api.parse_overrides(spelt)
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
        params = settled(composer, hydra_api.parse_overrides([keep_names(line) for line in read]))
        named = {o.get_key_element() for o in own}
        # The sweeper reads its own file; what is meant otherwise is said again here.
        given_lines += [
            param.input_line
            for param, was in zip(params, read, strict=True)
            if param.input_line != was and param.get_key_element() not in named
        ]
        for param in params:
            is_group[id(param)] = check_override(composer, param, primary)
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
                check_key(composer, override, known)
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
    folder, extra, moved = place(cfg, hydra_lines, jobs, name, digest, is_multirun)
    notes += [moved] if moved else []
    if is_multirun:
        extra += job_folders(everything, keys, combinations, hydra_lines)
    if not shown_only:
        check_writable(folder, "hydra.sweep.dir" if is_multirun else "hydra.run.dir")
    return Composed(
        jobs[0].config,
        (*given_lines, *following),
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


def _combinations(
    everything: Sequence[Any], base: Any, is_multirun: bool
) -> tuple[list[list[str]], bool]:
    """Override lists of all jobs, and whether they are all that will run."""
    if not is_multirun:
        return [[o.input_line for o in everything]], True
    target = str(base.hydra.sweeper.get(TARGET, ""))
    if not target.endswith(".BasicSweeper"):
        # Another sweeper chooses values as it goes; each job checks its own.
        return [[o.input_line for o in everything if not o.is_sweep_override()]], False
    for override in everything:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            line = override.input_line
            raise ConfigError(f"{line}: Hydra's own sweeper needs single values or a range")
    return hydra_api.combinations(everything), True
