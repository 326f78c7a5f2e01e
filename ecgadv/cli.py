"""The command line: check everything, then let Hydra start one job or a sweep of them.

Exit status: 0 all is well; 2 a mistake in the command line, the data or the victim, or a full disk;
1 an unexpected error, or a job of a sweep that did not finish; 130 and 143 interrupted by Ctrl-C
and by SIGTERM; 141 where ``--help`` and its like print into a closed pipe. What becomes of the
output of a run changes neither its results nor its status.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import errno
import functools
import importlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from ecgadv import config, environment
from ecgadv.errors import (
    BusyError,
    ConfigError,
    EcgadvError,
    NothingToDoError,
    RefusedError,
    StoreError,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

INTERRUPTED, TERMINATED, BROKEN_PIPE = 130, 143, 141

_NEEDS_BACKEND = ("attack", "train", "evaluate", "benchmark")

# Our options of hydra/launcher bear the names of the plugins' own, whose types they keep to.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against")

_codes: list[int] = []
"""Exit status of every job that ran in this process."""

_sweeps: set[int] = set()
"""This process, where it runs a sweep."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of the process) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with environment.settled():
        return _guarded(arguments)


def _guarded(arguments: list[str]) -> int:
    """:func:`_main` with every error said in one line."""
    try:
        with _termination_raises():
            return _main(arguments)
    except BrokenPipeError:
        return _closed_pipe()
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        return _say(error, None)


def _main(arguments: list[str]) -> int:
    environment.check_folder()
    args = config.parse_arguments(arguments)
    if args.help or args.hydra_help or args.shell_completion:
        return _show(_flags(args), args.overrides)
    composed = config.compose_checked(arguments)
    overrides = [*composed.overrides, *composed.extra]
    if composed.shown_only:
        return _show(_flags(args), composed.overrides)
    if composed.is_multirun:
        _refuse_other_sweep(composed)
    while True:
        # The same error that Hydra would print as a traceback, before it gets there.
        composed.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            composed.folder.mkdir(exist_ok=bool(composed.config["resume"]))
            break
        except FileExistsError:
            taken = composed.folder
            composed = config.compose_checked(arguments)
            overrides = [*composed.overrides, *composed.extra]
            if composed.folder == taken:
                break  # a folder of the user's own choice
            # Another command took this new folder in between: the next number then.
    for note in composed.notes:
        print(f"note: {note}", file=sys.stderr)
    _codes.clear()
    if composed.is_multirun:
        code = _sweep(composed, _flags(args), overrides)
    else:
        _hydra(_flags(args), overrides)
        code = _codes[-1] if _codes else 1
    lost = environment.lost_output()
    if lost is not None and lost.errno not in (errno.EPIPE, errno.EBADF):
        print(f"note: standard output was dropped: {lost.strerror}", file=sys.stderr)
    return code


def _show(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Let Hydra print what was asked for; unlike a run's, this output is all there is."""
    with contextlib.suppress(SystemExit):  # Hydra's way to end --help
        _hydra(flags, overrides)
    lost = environment.lost_output()
    if lost is None:
        return 0
    if lost.errno == errno.EPIPE:
        return BROKEN_PIPE
    raise ConfigError(f"standard output cannot be written: {lost.strerror}")


def _sweep(composed: config.Composed, flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Run all jobs, then list them; the sweep's folder is for one command at a time."""
    from ecgadv.store import FolderLock

    failure: BaseException | None = None
    code = 0
    with FolderLock(composed.folder, "this sweep"), _stopping_workers(composed.folder):
        share = _threads_a_job(composed.launcher, len(composed.jobs))
        is_ours = share is not None and "ECGADV_THREADS" not in os.environ
        if is_ours:
            os.environ["ECGADV_THREADS"] = str(share)
        _sweeps.add(os.getpid())
        try:
            _hydra(flags, overrides)
        except (KeyboardInterrupt, SystemExit):
            _summary(composed.folder, composed.n_jobs)
            raise
        except RefusedError:
            code = 2  # The job has said why.
        except Exception as error:
            failure = error
        finally:
            _sweeps.clear()
            if is_ours:
                os.environ.pop("ECGADV_THREADS", None)
        if failure is not None:
            code = _say(failure, composed.folder)
        code = _summary(composed.folder, composed.n_jobs) or code or max(_codes, default=0)
        _study(composed.folder)
        return code


def _refuse_other_sweep(composed: config.Composed) -> None:
    """Raise where the sweep's folder holds something else than its jobs; nothing is written.

    Raises:
        BusyError: another process works on the sweep.
        RefusedError: it holds a single run, jobs of another sweep or in another order, or results
            of data, a victim or a version of the attack that are no longer the same.
    """
    from ecgadv.store import FolderLock
    from ecgadv.store.identity import RESULTS, SWEEP_MARK, refuse_other, stored_identity
    from ecgadv.tracking.content import run_folders

    sweep = composed.folder
    if not sweep.is_dir() or not composed.jobs:
        return
    FolderLock(sweep, "this sweep").refuse_taken()
    for name in RESULTS:
        if name != SWEEP_MARK and (sweep / name).is_file():
            raise RefusedError(f"{sweep}: holds a run ({name}), no sweep; use another folder")
    ours = {job.signature: job for job in composed.jobs}
    # In folders that the person names, a number is no job's.
    is_numbered = any(line.startswith("hydra.sweep.subdir=") for line in composed.extra)
    remedy = "use resume=false or another folder"
    for place in run_folders(sweep):
        try:
            stored = stored_identity(place)
        except RefusedError:
            raise
        except StoreError:
            continue  # The job itself says what is damaged; the others go on.
        if not stored:
            continue
        job = ours.get(str(stored.get("signature")))
        if job is None:
            raise RefusedError(f"{sweep}: holds a job of another sweep ({place.name}); {remedy}")
        number = re.match(r"\d+", place.name) if is_numbered else None
        if number and int(number[0]) != job.number:
            raise RefusedError(
                f"{sweep}: holds the jobs of this sweep in another order ({place.name} is job "
                f"{job.number} of this command); {remedy}"
            )
        if job.config["task"] in ("attack", "benchmark", "train"):
            from ecgadv.tasks.attack import known_identity

            refuse_other(place, "", **known_identity(job.config))


def cores() -> int:
    """Cores that this process may use: those of its affinity, within its control group's quota."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def _threads_a_job(launcher: Mapping[str, Any], n_jobs: int) -> int | None:
    """Threads of each of joblib's workers, so that together they use every core once.

    ``None`` where the launcher is another one: SLURM and Ray tell each job its own.
    """
    if not str(launcher.get("_target_", "")).endswith(".JoblibLauncher"):
        return None
    there = cores()
    wanted = int(launcher.get("n_jobs") or 1)
    workers = wanted if wanted > 0 else max(1, there + 1 + wanted)
    # None are counted where another sweeper than Hydra's own finds the jobs as it goes.
    return max(1, there // min(workers, n_jobs or workers))


_WORKER = "joblib.externals.loky"
_GRACE_SECONDS = 20.0


@contextlib.contextmanager
def _stopping_workers(sweep: Path) -> Iterator[None]:
    """Let joblib's workers end their jobs as killed before a stopped sweep goes down with them.

    joblib kills its workers outright when its own process is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        import psutil

        workers = [
            p
            for p in psutil.Process().children()
            if _WORKER in " ".join(_command(p)) and "resource_tracker" not in " ".join(_command(p))
        ]
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                worker.terminate()
        end = time.monotonic() + _GRACE_SECONDS
        while workers and time.monotonic() < end and _any_running(sweep):
            time.sleep(0.1)
        if workers:
            _codes.append(INTERRUPTED if number == signal.SIGINT else TERMINATED)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif number == signal.SIGTERM:
            raise SystemExit(TERMINATED)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(process: Any) -> list[str]:
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _any_running(sweep: Path) -> bool:
    return any(read_status(p.parent)["status"] == "running" for p in sweep.glob("*/status.json"))


def _flags(args: argparse.Namespace) -> list[str]:
    flags = [f"--{f.replace('_', '-')}" for f in ("help", "hydra_help", "resolve", "multirun")]
    flags = [f for f in flags if getattr(args, f[2:].replace("-", "_"))]
    flags += ["--shell-completion"] if args.shell_completion else []
    for name in ("cfg", "package", "info"):
        if getattr(args, name) is not None:
            flags += [f"--{name}", getattr(args, name)]
    if args.config_dir is not None:
        flags += ["--config-dir", str(Path(args.config_dir).absolute())]
    return flags


def _hydra(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Hand over to Hydra, whose errors come back as exceptions instead of as its own texts."""
    import hydra

    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [sys.argv[0], *flags, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="config")(
            job
        )()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]


def job(cfg: DictConfig) -> int:
    """One job, in this process or in that of a launcher; never raises, so that a sweep goes on."""
    with environment.settled():
        return _job(cfg)


def _job(cfg: DictConfig) -> int:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if _codes and _codes[-1] in (INTERRUPTED, TERMINATED, BROKEN_PIPE):
        # The sweep was stopped: the jobs that have not begun stay as they are.
        return _codes[-1]
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    is_sweep = str(hydra.mode).endswith("MULTIRUN")
    label = folder.name if is_sweep else ""
    if is_sweep:
        _print(f"\njob {hydra.job.num}: {hydra.job.override_dirname or folder.name}")
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        values = config.normalise({str(k): v for k, v in plain.items()}, hydra.runtime.cwd)
    except Exception as error:
        code = _say(error, folder, label)
    else:
        code = run_task(values, folder, label, functools.partial(_keep_hydra, cfg, hydra, folder))
    _codes.append(code)
    told = read_status(folder)["status"] not in ("", "finished")
    if is_sweep and code and not told and os.getpid() not in _sweeps:
        # Its folder stays as it was, so only an exception tells the process of the sweep.
        raise RefusedError(f"job {label} was refused")
    return code


def _keep_hydra(cfg: DictConfig, hydra: Any, folder: Path) -> None:
    """What Hydra keeps of a job in ``.hydra``, written when the task begins and not before."""
    from hydra.core import utils
    from omegaconf import OmegaConf, open_dict, read_write

    if hydra.output_subdir is not None:
        return  # Hydra was told to do it.
    hydra = copy.deepcopy(hydra)
    with read_write(hydra), open_dict(hydra):
        hydra.output_subdir = ".hydra"
        hydra.overrides.hydra = [o for o in hydra.overrides.hydra if o != config.NO_HYDRA_FILES]
    place = folder / ".hydra"
    for content, name in (
        (cfg, "config.yaml"),
        (OmegaConf.create({"hydra": hydra}), "hydra.yaml"),
        (hydra.overrides.task, "overrides.yaml"),
    ):
        utils._save_config(content, name, place)


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

    beginning = _Beginning(folder, write_more)
    try:
        FolderLock(folder).refuse_taken()
        if not holds_results(folder):
            # Nothing is there to be lost, so everybody may see that the job has begun.
            beginning.begin()
        with _termination_raises():
            code = _run(cfg, folder, beginning.begin)
    except (BusyError, RefusedError) as error:
        beginning.take_back()
        return _say(error, folder, label, log=False)
    except NothingToDoError as error:
        if not holds_results(folder):  # Others' results stay as they are.
            beginning.begin()
            _write_status(folder, "skipped", _message(error, folder))
        return 0 if label else _say(error, folder)
    except KeyboardInterrupt:
        return _killed(folder, INTERRUPTED, "interrupted (Ctrl-C)", beginning.begun)
    except BrokenPipeError:
        _closed_pipe()
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
        code = _say(error, folder, label, log=beginning.begun)
        # What did not begin on finished or unfinished results leaves them as they were.
        if beginning.begun:
            with contextlib.suppress(OSError):
                _write_status(folder, "failed", _message(error, folder))
        return code
    with contextlib.suppress(OSError):
        if code == 0:
            (folder / "error.log").unlink(missing_ok=True)
        _write_status(folder, *(("failed", f"exit status {code}") if code else ("finished", "")))
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


class _Beginning:
    """The first writes of a task into its folder, and the way back to what was there."""

    def __init__(self, folder: Path, write_more: Callable[[], None] | None) -> None:
        self.folder = folder
        self.write_more = write_more
        self.before = read_status(folder)
        self.begun = False
        self._ours = ""
        # Hydra's log of warnings would be made in a folder that may have to stay as it is.
        self._logs = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.FileHandler)
            and Path(handler.baseFilename).is_relative_to(folder)
        ]
        for handler in self._logs:
            handler.addFilter(self._has_begun)

    def _has_begun(self, _: object) -> bool:
        return self.begun

    def begin(self) -> None:
        """Make the folder, say that it is running, and write what Hydra keeps of a job."""
        if self.begun:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.begun = True
        self._ours = _write_status(self.folder, "running", "")
        if self.write_more is not None:
            self.write_more()

    def take_back(self) -> None:
        """Take our status back, where the task was refused after it had begun."""
        if self.begun:
            with contextlib.suppress(OSError):
                _restore_status(self.folder, self.before, self._ours)


def _run(cfg: dict[str, Any], folder: Path, begin: Callable[[], None]) -> int:
    from ecgadv.store import FolderLock
    from ecgadv.store.identity import refuse_other

    config.validate(cfg)
    task = cfg["task"]
    # A share of a run has its place in the run's folder, also where a sweep started it.
    place = config.shard_folder(cfg) if cfg.get("shard") is not None else folder
    refuse_other(place, _how_it_differs(place, cfg), signature=config.signature(cfg))
    FolderLock(place).refuse_taken()
    if task in _NEEDS_BACKEND:
        from ecgadv import backend

        backend.configure(cfg["backend"])
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
    return config.differences(stored, cfg) or "the content of victim.path or selection.file"


def _killed(folder: Path, code: int, message: str, begun: bool) -> int:
    if begun:
        with contextlib.suppress(OSError):
            _write_status(folder, "killed", message)
    with contextlib.suppress(OSError):
        print(f"{message}: the same command goes on from here ({folder})", file=sys.stderr)
    return code


def _restore_status(folder: Path, before: Mapping[str, str], ours: str) -> None:
    """Take our status back, unless the process that does the work has said its own by now."""
    file = folder / "status.json"
    if file.read_text(encoding="utf-8") != ours:
        return
    if before["status"]:
        _write_status(folder, before["status"], before["message"])
    else:
        file.unlink()


def _write_status(folder: Path, status: str, message: str) -> str:
    """Replace ``status.json`` in one step, so that a reader never sees half of it."""
    content = {
        "status": status,
        "message": message,
        "updated": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "pid": os.getpid(),
    }
    text = json.dumps(content)
    handle, name = tempfile.mkstemp(prefix=".status-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(folder / "status.json")
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return text


def read_status(folder: Path) -> dict[str, str]:
    """Status and message of a job's folder; status "" where it never began."""
    try:
        content = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        return {"status": str(content["status"]), "message": str(content.get("message", ""))}
    except (OSError, ValueError, KeyError, TypeError):
        return {"status": "", "message": ""}


def _summary(folder: Path, n_jobs: int) -> int:
    """List the jobs of a sweep with their status; 1 where one of them did not finish."""

    def number(path: Path) -> tuple[int, str]:
        match = re.match(r"\d+", path.name)
        return (int(match[0]) if match else sys.maxsize, path.name)

    folders = sorted((p.parent for p in folder.rglob("status.json")), key=number)
    _print(f"\n{folder}")
    width = max((len(p.name) for p in folders), default=0)
    finished = 0
    for place in folders:
        found = read_status(place)
        # A process that was killed outright had no time to say so.
        status = "died" if found["status"] == "running" else found["status"]
        finished += status in ("finished", "skipped")
        _print(f"  {place.name:<{width}}  {status}  {found['message']}".rstrip())
    missing = max(0, n_jobs - len(folders))
    if missing:
        _print(f"  {missing} of {n_jobs} jobs did not begin")
    stopped = next((c for c in _codes if c in (INTERRUPTED, TERMINATED, BROKEN_PIPE)), 0)
    return stopped or int(finished < len(folders) or missing > 0 or not folders)


def _study(folder: Path) -> None:
    """The table and the figure that a study of shifted perturbations ends in."""
    from ecgadv.report import study

    try:
        study.show(folder)
    except (EcgadvError, OSError, ValueError, KeyError) as error:
        # The jobs' own results are there; what is drawn from them must not hide that.
        print(f"note: {folder}: no study ({_message(error, folder)})", file=sys.stderr)


def _print(text: str) -> None:
    print(text, flush=True)


# --- errors ---------------------------------------------------------------------------------------


_ENVIRONMENTAL = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR"),
        *("EMFILE", "ENAMETOOLONG", "EIO", "ENOENT", "ENOLCK"),
    )
    if hasattr(errno, name)
}
_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name)}


def _is_full(error: BaseException) -> bool:
    if not isinstance(error, OSError):
        return False
    # NumPy counts the items that it could not write and leaves errno out.
    return error.errno in _FULL or bool(
        re.search(r"free space|requested and \d+ written", str(error))
    )


def _is_expected(error: BaseException) -> bool:
    if isinstance(error, EcgadvError) or _is_full(error):
        return True
    return isinstance(error, OSError) and error.errno in _ENVIRONMENTAL and bool(error.filename)


def _message(error: BaseException, folder: Path | None) -> str:
    """One line for an error of any kind."""
    if isinstance(error, EcgadvError):
        text = str(error)
    elif _is_full(error):
        place = getattr(error, "filename", None) or folder or "the output folder"
        text = f"no space left on the disk of {place}: free some, then run the same command again"
    elif _is_expected(error) and isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"out of memory: try a smaller batch_size ({error})"
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _say(error: BaseException, folder: Path | None, label: str = "", *, log: bool = True) -> int:
    """Print one line about an error and return the exit status that it means.

    The traceback of an unexpected one goes to ``error.log`` of the folder, or with ``log=False``
    elsewhere.
    """
    line = f"error: {label + ': ' if label else ''}{_message(error, folder)}"
    if _is_expected(error):
        print(line, file=sys.stderr)
        return 2
    trace = "".join(traceback.format_exception(error))
    details = _write_log(trace, folder if log else None)
    line = line[:500] + (f" (details: {details})" if details else "")
    print(line, file=sys.stderr)
    if details is None:
        print(trace, file=sys.stderr)
    return 1


def _write_log(trace: str, folder: Path | None) -> Path | None:
    """Keep a traceback in ``error.log``, of the run's folder where there is one."""
    with contextlib.suppress(OSError):
        place = folder if folder is not None else Path(tempfile.mkdtemp(prefix="ecgadv-"))
        path = place / "error.log"
        path.write_text(trace, encoding="utf-8")
        return path
    return None


def _closed_pipe() -> int:
    """Nobody reads the output any more (``… | head``): end without a word."""
    with contextlib.suppress(OSError, ValueError):
        # What is still buffered must go nowhere when the interpreter flushes it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


@contextlib.contextmanager
def _termination_raises() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143), so that files and trackers are closed on the way out."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
