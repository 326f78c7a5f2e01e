"""Hydra's composition of this package's configuration, with every error as one line."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from ecgadv.config import hydra_api
from ecgadv.config.check import validate
from ecgadv.config.experiment import Task
from ecgadv.config.names import LABELS, NAMES, check_names, names_in_files, quote
from ecgadv.config.place import Job
from ecgadv.config.values import Config, normalise
from ecgadv.errors import ConfigError
from ecgadv.making import OPEN_MAPPINGS, TARGET, leaves, lookup
from ecgadv.signature import signature
from ecgadv.spelling import show, suggestion
from ecgadv.threat.front_ends import FRONT_ENDS


def conf_dir() -> Path:
    """The shipped configuration: inside the installed package, else beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "conf"
    return inside if (inside / "config.yaml").is_file() else here.parent / "conf"


def searchpath_of(hydra: Any) -> list[str]:
    """The override that gives a job's search path again; none where there is only our folder."""
    own = ("hydra", "main", "schema")
    paths = [
        f"{source.schema}://{source.path}"
        for source in hydra.runtime.config_sources
        if source.provider not in own
    ]
    return [f"hydra.searchpath=[{','.join(map(quote, paths))}]"] if paths else []


def with_device(config: Config, searchpath: Sequence[str]) -> Config:
    """A configuration with the option of ``filter`` that ``evaluation.filter`` names, all of it.

    Without a search path there are no options but ours, which are known by their names.

    Raises:
        ConfigError: there is no such option.
    """
    name = lookup(config, "evaluation.filter")
    if not isinstance(name, str) or (not searchpath and name in FRONT_ENDS):
        return config
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composer = Composer(searchpath)
            known = composer.options("filter")
            if name not in known:
                wanted = f"must be one of {', '.join(known)}"
                raise ConfigError(f"evaluation.filter={show(name)}: {wanted}")
            node = composer.plain(composer.compose([f"filter={name}"]))["filter"]
            ours = Composer([])
            if name in ours.options("filter"):
                usual = ours.plain(ours.compose([f"filter={name}"]))["filter"]
                node = None if node == usual else node
    finally:
        GlobalHydra.instance().hydra = before
    if node is None:
        return config
    return config | {"evaluation": config["evaluation"] | {"front_end": node}}


class Composer:
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

        with hydra_api.missing_search_paths():
            try:
                return compose("config", [*self.searchpath, *overrides], return_hydra_config=True)
            except Exception as error:
                raise ConfigError(self._explain(error)) from None

    def _explain(self, error: Exception) -> str:
        key = re.match(r"Could not override '(hydra\.[\w.]+)'", str(error))
        if key is None:
            return hydra_api.explained(error)
        from omegaconf import OmegaConf

        node = OmegaConf.to_container(self.compose([]).hydra, resolve=False)
        known = [f"hydra.{path}" for path, _ in leaves(cast("Config", node))]
        return f"{key[1]}: there is no such key{suggestion(key[1], known)}"

    def plain(self, cfg: Any) -> Config:
        """The task's part of a composition as plain dicts, interpolations resolved."""
        from omegaconf import OmegaConf

        out: Config = {}
        try:
            for key, node in hydra_api.nodes(cfg).items():
                out[str(key)] = (
                    OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
                    if OmegaConf.is_config(node)
                    else cfg[key]
                )
        except Exception as error:
            raise ConfigError(hydra_api.explained(error)) from None
        return out

    @functools.cached_property
    def repository(self) -> Any:
        """Hydra's view of all config groups, those of the search path included."""
        return hydra_api.repository(self.searchpath)

    def groups(self) -> set[str]:
        """Groups of which an option is always chosen (or null)."""
        listed = self.repository.load_config("config").defaults_list
        return {d.group for d in listed if getattr(d, "group", None) and not d.is_override()}

    def options(self, group: str) -> list[str]:
        """Options of a group; empty where there is no such group."""
        return hydra_api.options(self.repository, group)

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
        if group in get_args(Task) and group not in known:
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
        config = with_device(normalise(values, only_shown=not check), self.searchpath)
        if check:
            validate(config, plain)
        return cfg, Job(tuple(overrides), config, signature(config))
