"""Files as they lie on disk: whether they hold data at all, and whether they have changed."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ecgadv.errors import DataError, RecordError

_POINTERS = {
    b"version https://git-lfs.github.com/spec/": (
        "is a Git LFS pointer, not data; fetch the data with `git lfs pull`"
    ),
    b"/annex/objects/": "is a git-annex pointer, not data; fetch the data with `git annex get`",
}
"""First bytes of what a clone holds in place of a large file -> what to say."""

_HASHED_UP_TO = 64 * 2**20
"""Bytes of a data source up to which its contents are hashed at every start."""

_FRESH_SECONDS = 5.0
"""A file that was written this recently may change again without another time or size."""


def pointer(path: Path) -> str:
    """What to say of a file that only points to data kept elsewhere; "" for any other."""
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError:
        return ""
    return pointer_in(start)


def pointer_in(content: bytes) -> str:
    """:func:`pointer` of bytes that were read already."""
    return next((why for start, why in _POINTERS.items() if content.startswith(start)), "")


def refuse_pointer(path: Path) -> None:
    """Raise :class:`RecordError` where a file only points to data kept elsewhere."""
    why = pointer(path)
    if why:
        raise RecordError(f"{path.name} {why}")


def content_key(paths: Iterable[Path]) -> str:
    """A digest that changes with the content of any of some files.

    Small sets are hashed whole. Of large ones size and times count (the time of the last change of
    the inode, which no copy or restore sets back), and the content of what was written just now.
    A file that is missing counts as such.
    """
    digest = hashlib.sha256()
    files = sorted(set(paths))
    stats = {}
    for path in files:
        try:
            stats[path] = path.stat()
        except (OSError, ValueError):  # ValueError: a name with a zero byte in it
            continue
    whole = sum(stat.st_size for stat in stats.values()) <= _HASHED_UP_TO
    now = time.time()
    for path in files:
        digest.update(f"\n{path}:".encode("utf-8", "surrogateescape"))
        if path not in stats:
            continue
        stat = stats[path]
        fresh = now - max(stat.st_mtime, stat.st_ctime) < _FRESH_SECONDS
        digest.update(f"{stat.st_size}:".encode())
        if not whole:
            digest.update(f"{stat.st_mtime_ns}:{stat.st_ctime_ns}:".encode())
        if whole or fresh:
            try:
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError:
                digest.update(b"unreadable")
    return digest.hexdigest()


@lru_cache(maxsize=1)
def reader_version() -> str:
    """A digest of the code that reads recordings: what another version wrote is not read back."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Root:
    """What ``data.root`` of a data source must be.

    Attributes:
        what: as a person calls it; "" where the source reads no file.
        needed: whether there is no other place to look.
        folder: whether it may be a folder.
        suffixes: of the files that it may be; () for none, ("",) for any.
        zips: suffixes of those that are zip archives.
    """

    what: str = ""
    needed: bool = True
    folder: bool = False
    suffixes: tuple[str, ...] = ()
    zips: tuple[str, ...] = ()

    def check(self, name: str, root: str | None) -> None:
        """Raise :class:`DataError` where a file or folder cannot be it; nothing is read."""
        if root is None:
            if self.what and self.needed:
                raise DataError(f"data={name} needs data.root=…, {self.what}")
            return
        if not self.what:
            raise DataError(
                f"data.root={root}: data={name} reads no file, did you mean data=cinc2017?"
            )
        place = Path(root)
        if not place.exists():
            raise DataError(f"data.root={root}: there is no such file or folder")
        if not os.access(place, os.R_OK):
            raise DataError(f"data.root={root}: no permission to read it")
        why = pointer(place) if place.is_file() else ""
        if why:
            raise DataError(f"data.root={root} {why}")
        suffix = place.suffix.lower()
        any_file = "" in self.suffixes
        if not (self.folder if place.is_dir() else any_file or suffix in self.suffixes):
            raise DataError(f"data.root={root}: must be {self.what}")
        if place.is_file() and (any_file or suffix in self.zips) and not zipfile.is_zipfile(place):
            kind = "a zip" if any_file else f"an {suffix}"
            raise DataError(f"data.root={root} is not {kind} file; give {self.what}")
