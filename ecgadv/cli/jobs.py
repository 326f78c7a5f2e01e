"""One job: a task in its output folder, with its status kept there."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgadv import config, environment
from ecgadv.cli.said import message, say
from ecgadv.cli.status import Beginning, read_status, write_status
from ecgadv.cli.stopping import (
    BROKEN_PIPE,
    INTERRUPTED,
    TERMINATED,
    closed_pipe,
    termination_raises,
)
from ecgadv.config import hydra_api
from ecgadv.config.place import NO_HYDRA_FILES
from ecgadv.errors import BusyError, ConfigError, EcgadvError, NothingToDoError, RefusedError
from ecgadv.signature import differences, own_source, signature

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NEEDS_BACKEND = ("attack", "train", "evaluate", "benchmark")

CODES: list[int] = []
"""Exit status of every job that ran in this process."""

SWEEPS: set[int] = set()
"""This process, where it runs a sweep."""


def job(cfg: DictConfig) -> int:
    """One job, in this process or in that of a launcher; never raises, so that a sweep goes on."""
    with environment.settled():
        return _job(cfg)


def _job(cfg: DictConfig) -> int:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if CODES and CODES[-1] in (INTERRUPTED, TERMINATED, BROKEN_PIPE):
        # The sweep was stopped: the jobs that have not begun stay as they are.
        return CODES[-1]
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    is_sweep = str(hydra.mode).endswith("MULTIRUN")
    label = folder.name if is_sweep else ""
    if is_sweep:
        print(f"\njob {hydra.job.num}: {hydra.job.override_dirname or folder.name}", flush=True)
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        values = config.normalise({str(k): v for k, v in plain.items()}, hydra.runtime.cwd)
        values = config.with_device(values, config.searchpath_of(hydra))
    except Exception as error:
        code = say(error, folder, label)
    else:
        code = run_task(values, folder, label, functools.partial(_keep_hydra, cfg, hydra, folder))
    CODES.append(code)
    told = read_status(folder)["status"] not in ("", "finished")
    if is_sweep and code and not told and os.getpid() not in SWEEPS:
        # Its folder stays as it was, so only an exception tells the process of the sweep.
        raise RefusedError(f"job {label} was refused")
    return code


def _keep_hydra(cfg: DictConfig, hydra: Any, folder: Path) -> None:
    """What Hydra keeps of a job in ``.hydra``, written when the task begins and not before."""
    from omegaconf import OmegaConf, open_dict, read_write

    if hydra.output_subdir is not None:
        return  # Hydra was told to do it.
    hydra = copy.deepcopy(hydra)
    with read_write(hydra), open_dict(hydra):
        hydra.output_subdir = ".hydra"
        hydra.overrides.hydra = [o for o in hydra.overrides.hydra if o != NO_HYDRA_FILES]
    place = folder / ".hydra"
    for content, name in (
        (cfg, "config.yaml"),
        (OmegaConf.create({"hydra": hydra}), "hydra.yaml"),
        (hydra.overrides.task, "overrides.yaml"),
    ):
        hydra_api.save(content, name, place)


def run_task(
    cfg: dict[str, Any],
    folder: Path,
    label: str = "",
    write_more: Callable[[], None] | None = None,
) -> int:
    """Do one task in its output folder, keeping ``status.json`` there up to date.

    A folder that holds results is written to only when the task is sure that they are its own, and
    that its data and victim can be used.

    Args:
        cfg: normalised configuration.
        folder: absolute output folder, made where it is missing.
        label: which job of a sweep it is, for its error lines.
        write_more: writes what else belongs into the folder when the task begins.

    Returns:
        Exit status; every error has been said in one line on stderr by then.
    """
    with environment.settled():
        return _run_task(cfg, folder, label, write_more)


def _run_task(
    cfg: dict[str, Any], folder: Path, label: str, write_more: Callable[[], None] | None
) -> int:
    from ecgadv.store import FolderLock
    from ecgadv.store.identity import holds_results

    beginning = Beginning(folder, write_more)
    try:
        FolderLock(folder).refuse_taken()
        if not holds_results(folder):
            # Nothing is there to be lost, so everybody may see that the job has begun.
            beginning.begin()
        with termination_raises():
            code = _run(cfg, folder, beginning.begin)
    except (BusyError, RefusedError) as error:
        beginning.take_back()
        return say(error, folder, label, log=False)
    except NothingToDoError as error:
        if not holds_results(folder):  # Others' results stay as they are.
            beginning.begin()
            write_status(folder, "skipped", message(error, folder))
        return 0 if label else say(error, folder)
    except KeyboardInterrupt:
        return _killed(folder, INTERRUPTED, "interrupted (Ctrl-C)", beginning.begun)
    except BrokenPipeError:
        closed_pipe()
        return _killed(folder, BROKEN_PIPE, "nobody reads the output any more", beginning.begun)
    except SystemExit as stop:
        if os.environ.get("SUBMITIT_EXECUTOR"):
            # Preempted, or its time is over: without a result the job counts as not done, so the
            # sweep waits for it to be queued and run again.
            _killed(folder, TERMINATED, "stopped by the cluster", beginning.begun)
            raise
        if stop.code == TERMINATED:
            return _killed(folder, TERMINATED, "terminated (SIGTERM)", beginning.begun)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        code = say(error, folder, label, log=beginning.begun)
        # What did not begin on finished or unfinished results leaves them as they were.
        if beginning.begun:
            with contextlib.suppress(OSError):
                write_status(folder, "failed", message(error, folder))
        return code
    with contextlib.suppress(OSError):
        if code == 0:
            (folder / "error.log").unlink(missing_ok=True)
        write_status(folder, *(("failed", f"exit status {code}") if code else ("finished", "")))
    whole = _whole_run(cfg)
    if whole is not None and code in (0, 1):

        def keep() -> None:
            shutil.copytree(folder / ".hydra", whole / ".hydra", dirs_exist_ok=True)

        return run_task({**cfg, "shard": None}, whole, label, keep)
    return code


def _whole_run(cfg: Mapping[str, Any]) -> Path | None:
    """Folder of a split run of which all chunks are stored by now, for its last share to end."""
    if cfg.get("shard") is None:
        return None
    from ecgadv.store import is_complete

    folder = config.run_folder(cfg)
    return folder if is_complete(folder) else None


def _run(cfg: dict[str, Any], folder: Path, begin: Callable[[], None]) -> int:
    from ecgadv.store import FolderLock
    from ecgadv.store.identity import refuse_other

    config.validate(cfg)
    task = cfg["task"]
    # A share of a run has its place in the run's folder, also where a sweep started it.
    place = config.shard_folder(cfg) if cfg.get("shard") is not None else folder
    refuse_other(place, _how_it_differs(place, cfg), signature=signature(cfg))
    FolderLock(place).refuse_taken()
    if task in _NEEDS_BACKEND:
        from ecgadv import backend

        backend.configure(cfg["backend"])
        config.check_foreign(cfg)
    name = f"ecgadv.tasks.{task}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("ecgadv.tasks", name):
            raise
        raise ConfigError(f"task={task} is not available in this version yet") from None
    if not hasattr(module, "prepare"):
        begin()
        return int(module.run(cfg, place) or 0)
    work = module.prepare(cfg, place)
    begin()
    return int(work() or 0)


def _how_it_differs(folder: Path, cfg: Mapping[str, Any]) -> str:
    """What is another value in the configuration of the results in a folder; "" if not known."""
    from ecgadv.store.files import read_object

    try:
        stored = read_object(folder / "config.json")
    except EcgadvError:
        return ""
    if not stored:
        return ""
    told = differences(stored, cfg)
    if told or stored.keys() < cfg.keys():
        return told or f"made by another version, without {', '.join(cfg.keys() - stored.keys())}"
    mine = {key: node for key, node in cfg.items() if isinstance(node, Mapping)}
    own = [f"{key}={node.get('name')}" for key, node in mine.items() if own_source(node)]
    return f"the content of {' or '.join([*own, 'victim.path or selection.file'])}"


def _killed(folder: Path, code: int, message: str, begun: bool) -> int:
    if begun:
        with contextlib.suppress(OSError):
            write_status(folder, "killed", message)
    with contextlib.suppress(OSError):
        print(f"{message}: the same command goes on from here ({folder})", file=sys.stderr)
    return code
