"""A sweep: whose folder it is, its workers, and the list of its jobs at the end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ecgadv import config
from ecgadv.cli.jobs import CODES, SWEEPS
from ecgadv.cli.said import message, say
from ecgadv.cli.status import read_status
from ecgadv.cli.stopping import BROKEN_PIPE, INTERRUPTED, TERMINATED
from ecgadv.errors import EcgadvError, RefusedError, StoreError


def sweep(composed: config.Composed, run: Callable[[], None]) -> int:
    """Run all jobs, then list them; the sweep's folder is for one command at a time."""
    from ecgadv.store import FolderLock

    failure: BaseException | None = None
    code = 0
    with FolderLock(composed.folder, "this sweep"), _stopping_workers(composed.folder):
        share = _threads_a_job(composed.launcher, len(composed.jobs))
        is_ours = share is not None and "ECGADV_THREADS" not in os.environ
        if is_ours:
            os.environ["ECGADV_THREADS"] = str(share)
        SWEEPS.add(os.getpid())
        try:
            run()
        except (KeyboardInterrupt, SystemExit):
            _summary(composed.folder, composed.n_jobs)
            raise
        except RefusedError:
            code = 2  # The job has said why.
        except Exception as error:
            failure = error
        finally:
            SWEEPS.clear()
            if is_ours:
                os.environ.pop("ECGADV_THREADS", None)
        if failure is not None:
            code = say(failure, composed.folder)
        code = _summary(composed.folder, composed.n_jobs) or code or max(CODES, default=0)
        _study(composed.folder)
        return code


def refuse_other_sweep(composed: config.Composed) -> None:
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
            CODES.append(INTERRUPTED if number == signal.SIGINT else TERMINATED)
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


def _summary(folder: Path, n_jobs: int) -> int:
    """List the jobs of a sweep with their status; 1 where one of them did not finish."""

    def number(path: Path) -> tuple[int, str]:
        match = re.match(r"\d+", path.name)
        return (int(match[0]) if match else sys.maxsize, path.name)

    folders = sorted((p.parent for p in folder.rglob("status.json")), key=number)
    print(f"\n{folder}", flush=True)
    width = max((len(p.name) for p in folders), default=0)
    finished = 0
    for place in folders:
        found = read_status(place)
        # A process that was killed outright had no time to say so.
        status = "died" if found["status"] == "running" else found["status"]
        finished += status in ("finished", "skipped")
        print(f"  {place.name:<{width}}  {status}  {found['message']}".rstrip(), flush=True)
    missing = max(0, n_jobs - len(folders))
    if missing:
        print(f"  {missing} of {n_jobs} jobs did not begin", flush=True)
    stopped = next((c for c in CODES if c in (INTERRUPTED, TERMINATED, BROKEN_PIPE)), 0)
    return stopped or int(finished < len(folders) or missing > 0 or not folders)


def _study(folder: Path) -> None:
    """The table and the figure that a study of shifted perturbations ends in."""
    from ecgadv.report import study

    try:
        study.show(folder)
    except (EcgadvError, OSError, ValueError, KeyError) as error:
        # The jobs' own results are there; what is drawn from them must not hide that.
        print(f"note: {folder}: no study ({message(error, folder)})", file=sys.stderr)
