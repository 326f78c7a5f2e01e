"""What the command line says of errors, and the exit status that each means."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import tempfile
import traceback
from pathlib import Path

from ecgadv.errors import EcgadvError

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


def message(error: BaseException, folder: Path | None) -> str:
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


def say(error: BaseException, folder: Path | None, label: str = "", *, log: bool = True) -> int:
    """Print one line about an error and return the exit status that it means.

    The traceback of an unexpected one goes to ``error.log`` of the folder, or with ``log=False``
    elsewhere.
    """
    line = f"error: {label + ': ' if label else ''}{message(error, folder)}"
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
