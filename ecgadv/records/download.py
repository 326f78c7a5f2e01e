"""Fetching the CinC 2017 archive once: resumable, checked, with one line where there is no network.

pooch keeps the protocol (temporary file, digest check, atomic move); its own HTTP downloader always
starts from zero, so a resuming one is plugged in.
"""

from __future__ import annotations

import contextlib
import csv
import os
import threading
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ecgadv.errors import DataError

if TYPE_CHECKING:
    import requests

LABELS_NAME = "REFERENCE-v3.csv"
"""Name of the revised label file, in the archive or beside it."""

_SUMS_NAME = "SHA256SUMS.txt"
_CHUNK = 1 << 14  # an interruption costs at most so many bytes
_CONNECT_S = 4.0
_ANSWER_S = 8.0
_READ_S = 30.0


def fetch(url: str, labels_url: str, folder: Path, n_records: int | None = None) -> Path:
    """Path of the archive in ``folder``, downloaded first where it is not there yet.

    A broken download leaves ``<name>.part`` and the next call goes on from it (HTTP ``Range``). The
    finished file is checked against the server's ``SHA256SUMS.txt`` where there is one, and always
    as a zip (every member's CRC, number of records); only then does it get its name. Where the
    archive lacks the revised labels, they are put beside it.

    Args:
        url: of the zip.
        labels_url: of the revised label file.
        folder: where the files go; made where it is missing.
        n_records: how many records the archive must hold; ``None`` asks for at least one.

    Raises:
        DataError: no network, an interrupted transfer, or a file that fails its check.
    """
    from filelock import FileLock

    target = folder / PurePosixPath(urlsplit(url).path).name
    if target.is_file() and (folder / LABELS_NAME).is_file():
        return target  # Whose lock lies there does not matter any more.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Jobs of a sweep start together; one downloads, the others wait for its file.
        with FileLock(f"{target}.lock"):
            if not target.is_file():
                _download(url, target, n_records)
            _fetch_labels(target, labels_url, folder / LABELS_NAME)
    except OSError as error:
        raise DataError(f"cannot write the download to {folder}: {error}; {_advice(url)}") from None
    return target


def _advice(url: str) -> str:
    name = PurePosixPath(urlsplit(url).path).name
    return f"get {url} by other means and give it as data.root=/path/to/{name}"


def _unavailable(url: str, why: str) -> DataError:
    return DataError(f"cannot download {url} ({why}); {_advice(url)}")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout | TimeoutError):
        return "no network: no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer was interrupted; the same command goes on from there"
    if isinstance(error, requests.ConnectionError):
        return "no network: the server cannot be reached"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    """A streamed answer; gives up after a few seconds, also where only the name server hangs."""
    import requests

    box: list[requests.Response | Exception] = []

    def work() -> None:
        try:
            # "identity": a compressed transfer would make byte ranges mean something else.
            wanted = {"Accept-Encoding": "identity", **(headers or {})}
            timeout = (_CONNECT_S, _READ_S)
            box.append(requests.get(url, headers=wanted, stream=True, timeout=timeout))
        except Exception as error:  # handed to the waiting thread
            box.append(error)

    # No timeout of requests covers the name server, hence a thread that is left behind.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    if not box:
        raise TimeoutError("no answer in time")
    answer = box[0]
    if isinstance(answer, Exception):
        raise answer
    if answer.status_code != 416:
        answer.raise_for_status()
    return answer


class _Resuming:
    """A pooch downloader that appends to a ``.part`` file which survives an interruption."""

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str | IO[bytes], pooch: Any) -> None:
        if not isinstance(output_file, str | os.PathLike):
            raise TypeError("the target must be a path")
        have = self.part.stat().st_size if self.part.is_file() else 0
        answer = _get(url, {"Range": f"bytes={have}-"} if have else None)
        if answer.status_code == 416:
            if have == _announced(answer):
                os.replace(self.part, output_file)
                return
            self.part.unlink()
            have, answer = 0, _get(url)
        if answer.status_code != 206 or _range_start(answer) != have:
            # The server ignored the range or chose its own: only the whole file is safe.
            if answer.status_code == 206:
                answer = _get(url)
            have = 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        self._write(answer, have, total)
        if total and self.part.stat().st_size < total:
            raise InterruptedTransferError(
                f"the transfer broke off at {self.part.stat().st_size} of {total} bytes; "
                "the same command goes on from there"
            )
        os.replace(self.part, output_file)

    def _write(self, answer: requests.Response, have: int, total: int) -> None:
        import requests
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
        console = Console(stderr=True)
        with (
            self.part.open("ab" if have else "wb") as file,
            Progress(*columns, console=console, transient=True) as progress,
        ):
            bar = progress.add_task(
                f"downloading {self.part.stem}", total=total or None, completed=have
            )
            try:
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    progress.update(bar, advance=len(chunk))
            except requests.RequestException as error:
                raise InterruptedTransferError(
                    f"the transfer broke off after {file.tell()} bytes; "
                    "the same command goes on from there"
                ) from error


class InterruptedTransferError(Exception):
    """The connection was lost; what arrived is kept in the ``.part`` file."""


def _range_start(answer: requests.Response) -> int:
    """First byte of a 206 answer, from ``Content-Range: bytes 100-199/200``; -1 where unknown."""
    text = answer.headers.get("Content-Range", "")
    try:
        return int(text.removeprefix("bytes ").split("-")[0])
    except ValueError:
        return -1


def _announced(answer: requests.Response) -> int:
    """Total bytes that a 416 answer announces (``Content-Range: bytes */200``); -1 where none."""
    try:
        return int(answer.headers.get("Content-Range", "").rpartition("/")[2])
    except ValueError:
        return -1


def _published_digest(url: str) -> str | None:
    """sha256 of the file in the ``SHA256SUMS.txt`` beside it; ``None`` where none is published."""
    import requests

    name = PurePosixPath(urlsplit(url).path).name
    try:
        text = _get(urljoin(url, _SUMS_NAME)).text
    except requests.HTTPError:
        return None
    for line in text.splitlines():
        digest, _, listed = line.partition(" ")
        if listed.strip().lstrip("*") == name and len(digest) == 64:
            return f"sha256:{digest}"
    return None


def _download(url: str, target: Path, n_records: int | None) -> None:
    import logging

    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    part = target.with_name(f"{target.name}.part")
    checked = target.with_name(f"{target.name}.unchecked")
    checked.unlink(missing_ok=True)
    try:
        pooch.retrieve(
            url,
            known_hash=_published_digest(url),
            fname=checked.name,
            path=checked.parent,
            downloader=_Resuming(part),
        )
    # requests' errors are OSErrors too: they must not be taken for a full disk.
    except (requests.RequestException, TimeoutError) as error:
        raise _unavailable(url, _reason(error)) from None
    except InterruptedTransferError as error:
        raise _unavailable(url, str(error)) from None
    except ValueError as error:  # pooch's answer to a wrong digest
        raise _unavailable(url, f"what arrived is damaged: {str(error).splitlines()[0]}") from None
    try:
        _check_zip(checked, n_records)
    except DataError as error:
        checked.unlink(missing_ok=True)
        raise _unavailable(url, f"what arrived is damaged: {error}") from None
    os.replace(checked, target)


def _check_zip(path: Path, n_records: int | None) -> None:
    """Read every member once (CRC-32) and count the records.

    Raises:
        DataError: no zip, a damaged member, or too few records.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
            names = archive.namelist()
    except Exception as error:  # zipfile and zlib raise many kinds on damaged files
        raise DataError(f"not a readable zip ({error})") from None
    if bad:
        raise DataError(f"member {bad} fails its checksum")
    found = sum(name.endswith(".mat") for name in names)
    if found == 0 or (n_records is not None and found != n_records):
        raise DataError(f"it holds {found} records, not {n_records or 'any'}")


def _fetch_labels(archive: Path, url: str, target: Path) -> None:
    """Put the revised labels beside an archive that lacks them.

    An archive with the original labels stays usable without a network: its reader says which it
    used.
    """
    import requests

    try:
        with zipfile.ZipFile(archive) as opened:
            names = {PurePosixPath(name).name for name in opened.namelist()}
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive} is not a readable zip file ({error}); delete it") from None
    if LABELS_NAME in names or target.is_file():
        return
    try:
        text = _get(url).text
    except (requests.RequestException, TimeoutError) as error:
        if "REFERENCE.csv" in names:
            return
        raise _unavailable(url, _reason(error)) from None
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows or any(len(row) < 2 for row in rows):
        raise DataError(f"{url} is not a label file with rows 'record,label'")
    scratch = target.with_name(f"{target.name}.part")
    scratch.write_text(text, encoding="utf-8")
    with contextlib.suppress(FileNotFoundError):
        os.replace(scratch, target)
