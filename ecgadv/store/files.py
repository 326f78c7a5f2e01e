"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ecgadv.errors import StoreError
from ecgadv.evaluate.tables import Table


def write_atomic(path: Path, content: bytes | str | Callable[[IO[bytes]], object]) -> None:
    """Replace a file so that a reader sees the old or the new content, never a mixture.

    The content is on the disk when this returns: file and folder are synced.

    Args:
        path: the file.
        content: bytes, a text, or a function that writes to an open file.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(scratch, "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror or error})") from None


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems sync no folders; a full or broken disk is said.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], table: Table) -> None:
    """Write rows of a table as CSV, atomically.

    Raises:
        StoreError: see :func:`write_atomic`.
        ValueError: a row is none of the table.
    """
    write_atomic(path, table.text(rows))


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object; {} where the file is missing.

    Raises:
        StoreError: it cannot be read, or holds something else.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file}: damaged ({error})") from None
    if not isinstance(content, dict):
        raise StoreError(f"{file}: damaged (no JSON object)")
    return content
