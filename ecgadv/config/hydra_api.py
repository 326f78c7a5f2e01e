"""Everything of Hydra's that is not its public interface, in one place."""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ecgadv.errors import ConfigError


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


def explained(error: BaseException) -> str:
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
def missing_search_paths() -> Iterator[None]:
    """Make an error of Hydra's warning about a search path that leads nowhere."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        found = re.search(r"path=(.*?) is not available", str(warning.message), re.S)
        if found:
            raise ConfigError(f"hydra.searchpath: {found[1]}: there is no such folder")


def parse_overrides(lines: Sequence[str]) -> list[Any]:
    """Overrides as Hydra's grammar reads them; one that it cannot read is a ConfigError."""
    out = []
    for line in lines:
        try:
            out.append(read_override(line))
        except Exception as error:
            key, equals, value = line.partition("=")
            if not equals and not line.startswith("~"):
                raise ConfigError(f"{line}: must be written as key=value") from None
            if re.search(r"~(?!/)", value):
                raise ConfigError(f"{line}: cannot be read; write noise for the class ~") from None
            where = explained(error).split(";")[0]
            raise ConfigError(
                f"{line}: cannot be read; put quotes around the value, as in \"{key}='…'\""
                + ("" if "Viable" in where else f" ({where})")
            ) from None
        if not out[-1].key_or_group:
            raise ConfigError(f"{line}: must be written as key=value")
    return out


def values(override: Any) -> list[Any]:
    """The value of an override, or all of a sweep over a discrete set."""
    if not override.is_sweep_override():
        return [override.value()]
    return list(override.sweep_iterator()) if override.is_discrete_sweep() else []


def read_override(line: str) -> Any:
    """One override as Hydra's grammar reads it."""
    return _parser().parse_override(line)


@functools.cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def combinations(overrides: Sequence[Any]) -> list[list[str]]:
    """Override lists of all jobs, as Hydra's own sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return BasicSweeper.split_arguments(list(overrides), None)[0]


def repository(searchpath: Sequence[str]) -> Any:
    """Hydra's view of all config groups; its own list leaves the command line's path out."""
    from hydra.core.global_hydra import GlobalHydra

    loader: Any = GlobalHydra.instance().config_loader()
    with missing_search_paths():
        return loader._parse_overrides_and_create_caching_repo("config", list(searchpath))[1]


def options(groups: Any, group: str) -> list[str]:
    """Options of a group of a :func:`repository`; empty where there is no such group."""
    from hydra.core.object_type import ObjectType

    if not groups.group_exists(group):
        return []
    return sorted(set(groups.get_group_options(group, ObjectType.CONFIG)))


def nodes(cfg: Any) -> dict[Any, Any]:
    """Sections of a composition without Hydra's own, interpolations as they stand."""
    return {key: cfg._get_node(key) for key in cfg if key != "hydra"}


def yaml_loader() -> Any:
    """The loader with which OmegaConf reads files."""
    from omegaconf._utils import get_yaml_loader

    return get_yaml_loader()


def save(content: Any, name: str, folder: Path) -> None:
    """Write a part of a composition as Hydra writes it."""
    from hydra.core import utils

    utils._save_config(content, name, folder)
