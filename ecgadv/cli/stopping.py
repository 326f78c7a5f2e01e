"""Exit status of what was stopped from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED, BROKEN_PIPE = 130, 143, 141


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
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


def closed_pipe() -> int:
    """Nobody reads the output any more (``… | head``): end without a word."""
    with contextlib.suppress(OSError, ValueError):
        # What is still buffered must go nowhere when the interpreter flushes it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
