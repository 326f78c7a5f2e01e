"""A folder for one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ecgadv.errors import BusyError, StoreError
from ecgadv.store.files import write_atomic

if TYPE_CHECKING:
    from filelock import BaseFileLock


class FolderLock:
    """A folder for one process at a time, on every machine that sees it.

    The system releases the lock with its process, so one that was killed leaves none behind. Where
    the file system has no such locks, a file that names the owner takes their place, and one
    whose owner is gone from this machine is removed.

    Args:
        folder: made where it is missing.
        what: completes "another process (…) is working on".
        name: of the lock file.
    """

    def __init__(self, folder: Path, what: str = "this run", name: str = ".lock") -> None:
        self.folder = folder
        self.what = what
        self.name = name
        self._lock: BaseFileLock | None = None

    def acquire(self, timeout: float = 0.0) -> FolderLock:
        """Take the lock.

        Raises:
            BusyError: another process has it and keeps it for ``timeout`` seconds.
            StoreError: the folder cannot be written.
        """
        from filelock import FileLock, SoftFileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = FileLock(self.folder / self.name)
                # Whoever looks whether it is taken holds it for a moment.
                self._lock.acquire(timeout=max(timeout, 0.2))
            except NotImplementedError:
                self._lock = SoftFileLock(self.folder / f"{self.name}.soft")
                self._lock.acquire(timeout=timeout)
        except Timeout:
            raise BusyError(self._busy()) from None
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror})") from None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        # On a full disk the lock holds without a note of its owner.
        with contextlib.suppress(StoreError):
            write_atomic(self.folder / f"{self.name}.by", json.dumps(owner))
        return self

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def is_taken(self) -> bool:
        """Whether a process has the lock now; False where the folder cannot tell.

        Nothing is written: not even a time of modification changes.
        """
        try:
            handle = os.open(self.folder / self.name, os.O_RDONLY)
        except OSError:
            return False
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (ImportError, OSError):
            return False
        finally:
            os.close(handle)
        return False

    def refuse_taken(self) -> None:
        """Raise :class:`BusyError` where another process has the lock; writes nothing."""
        if self.is_taken():
            raise BusyError(self._busy())

    def _busy(self) -> str:
        return f"{self.folder}: another process{self._owner()} is working on {self.what}"

    def _owner(self) -> str:
        try:
            owner = json.loads((self.folder / f"{self.name}.by").read_text(encoding="utf-8"))
            return f" (pid {owner['pid']} on {owner['host']}, since {owner['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
