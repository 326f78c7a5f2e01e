"""``status.json`` of a job's folder: who works there, and how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path


class Beginning:
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
        self._ours = write_status(self.folder, "running", "")
        if self.write_more is not None:
            self.write_more()

    def take_back(self) -> None:
        """Take our status back, where the task was refused after it had begun."""
        if self.begun:
            with contextlib.suppress(OSError):
                _restore_status(self.folder, self.before, self._ours)


def _restore_status(folder: Path, before: Mapping[str, str], ours: str) -> None:
    """Take our status back, unless the process that does the work has said its own by now."""
    file = folder / "status.json"
    if file.read_text(encoding="utf-8") != ours:
        return
    if before["status"]:
        write_status(folder, before["status"], before["message"])
    else:
        file.unlink()


def write_status(folder: Path, status: str, message: str) -> str:
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
