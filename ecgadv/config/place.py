"""Names and folders of runs and sweeps, made of what their configurations say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgadv.config import hydra_api
from ecgadv.config.names import quote
from ecgadv.config.values import Config
from ecgadv.errors import ConfigError
from ecgadv.making import lookup
from ecgadv.signature import signature

NO_HYDRA_FILES = "hydra.output_subdir=null"
"""Keeps Hydra from writing ``.hydra`` into a folder before it is known whose results it holds."""

NAME_LIMIT = 100


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
    for group, usual in (("defence", "none"), ("goal", "exclusive")):
        option = lookup(cfg, f"{group}.name")
        if task != "train" and option not in (None, usual):
            parts[group] = str(option)
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


@dataclass(frozen=True)
class Job:
    """One configuration of a run or of a sweep: its overrides, normalised values and digest.

    ``number`` counts the jobs of a sweep in the order in which Hydra starts them.
    """

    overrides: tuple[str, ...]
    config: Config
    signature: str
    number: int = 0


def place(
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
            raise ConfigError(f"{key}: {hydra_api.explained(error)}") from None
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


def job_folders(
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
