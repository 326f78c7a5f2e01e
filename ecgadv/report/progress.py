"""A progress bar that also works where standard error is a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

QUIET_PERIOD = 15.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """Cases done, successes so far and time left, on standard error.

    Args:
        title: what is going on.
        total: items in all.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self._bar: Any = None
        self._task: Any = None
        self._started = self._said = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn(),
                console=Console(stderr=True),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, note="")
        return self

    def update(self, done: int, note: str = "") -> None:
        """Say that ``done`` items are finished."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._said < QUIET_PERIOD:
            return
        self._said = now
        left = ""
        if done > self._first:
            rest = (now - self._started) / (done - self._first) * (self.total - done)
            left = f", about {rest:.0f} s left"
        line = f"{self.title}: {done}/{self.total} {note}{left}"
        print(line, file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
