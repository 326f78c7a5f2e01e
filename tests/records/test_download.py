import hashlib
import io
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ecgadv.errors import DataError
from ecgadv.records import download
from ecgadv.records.download import fetch


def archive(reference: str = "REFERENCE.csv") -> bytes:
    rng = np.random.default_rng(0)
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w") as opened:
        for i in range(1, 4):
            opened.writestr(f"training2017/A{i:05d}.mat", rng.bytes(100_000))
            opened.writestr(f"training2017/A{i:05d}.hea", "header")
        if reference:
            opened.writestr(f"training2017/{reference}", "A00001,N\n")
    return box.getvalue()


class Server(ThreadingHTTPServer):
    """Serves ``files`` with byte ranges; breaks off after ``break_after`` bytes of the zip."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"training2017.zip": archive(), "REFERENCE-v3.csv": b"A00001,O\nA00002,N\n"}
        self.break_after: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/files/training2017.zip"

    @property
    def labels_url(self) -> str:
        return self.url.replace("training2017.zip", "REFERENCE-v3.csv")

    def get(self, folder: Path, n_records: int | None = 3) -> Path:
        return fetch(self.url, self.labels_url, folder, n_records)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        wanted = self.headers.get("Range")
        self.server.asked.append((name, wanted))
        body = self.server.files.get(name)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start:]
        if name.endswith(".zip") and self.server.break_after is not None:
            part = part[: self.server.break_after]
        self.wfile.write(part)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def test_fetches_once_and_puts_the_revised_labels_beside(server: Server, tmp_path: Path) -> None:
    path = server.get(tmp_path)
    assert path.read_bytes() == server.files["training2017.zip"]
    assert (tmp_path / "REFERENCE-v3.csv").read_text() == "A00001,O\nA00002,N\n"
    assert {p.suffix for p in tmp_path.iterdir()} <= {".zip", ".csv", ".lock"}
    asked = len(server.asked)
    assert server.get(tmp_path) == path
    assert len(server.asked) == asked, "what is there needs no network"


def test_labels_in_the_archive_are_enough(server: Server, tmp_path: Path) -> None:
    server.files["training2017.zip"] = archive("REFERENCE-v3.csv")
    server.get(tmp_path)
    assert not (tmp_path / "REFERENCE-v3.csv").exists()


def test_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    server.break_after = 120_000
    with pytest.raises(DataError, match="the same command goes on from there") as caught:
        server.get(tmp_path)
    assert "\n" not in str(caught.value)
    part = tmp_path / "training2017.zip.part"
    first = part.stat().st_size
    assert 100_000 < first <= 120_000
    assert not (tmp_path / "training2017.zip").exists()
    with pytest.raises(DataError):
        server.get(tmp_path)
    second = part.stat().st_size
    assert first + 100_000 < second <= first + 120_000
    server.break_after = None
    assert server.get(tmp_path).read_bytes() == server.files["training2017.zip"]
    ranges = [r for name, r in server.asked if name == "training2017.zip"]
    assert ranges == [None, f"bytes={first}-", f"bytes={second}-"]
    assert not part.exists()


def test_a_server_without_ranges_is_asked_for_everything(server: Server, tmp_path: Path) -> None:
    (tmp_path / "training2017.zip.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert server.get(tmp_path).read_bytes() == server.files["training2017.zip"]


def test_a_part_that_is_whole_already_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "training2017.zip.part").write_bytes(server.files["training2017.zip"])
    assert server.get(tmp_path).read_bytes() == server.files["training2017.zip"]


def test_a_part_that_is_too_long_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "training2017.zip.part").write_bytes(b"x" * 1_000_000)
    assert server.get(tmp_path).read_bytes() == server.files["training2017.zip"]


def test_a_published_digest_is_checked(server: Server, tmp_path: Path) -> None:
    good = hashlib.sha256(server.files["training2017.zip"]).hexdigest()
    server.files["SHA256SUMS.txt"] = f"{good} training2017.zip\n".encode()
    server.get(tmp_path / "good")
    server.files["SHA256SUMS.txt"] = f"{'0' * 64} training2017.zip\n".encode()
    with pytest.raises(DataError, match="what arrived is damaged") as caught:
        server.get(tmp_path / "bad")
    assert "\n" not in str(caught.value)
    assert [p.suffix for p in (tmp_path / "bad").iterdir()] == [".lock"]


def test_what_is_no_archive_of_records_is_not_kept(server: Server, tmp_path: Path) -> None:
    good = server.files["training2017.zip"]
    server.files["training2017.zip"] = b"<html>log in</html>"
    with pytest.raises(DataError, match="damaged: not a readable zip"):
        server.get(tmp_path)
    server.files["training2017.zip"] = good
    with pytest.raises(DataError, match="it holds 3 records, not 8528"):
        server.get(tmp_path, 8528)
    flipped = bytearray(good)
    flipped[50_000] ^= 0xFF
    server.files["training2017.zip"] = bytes(flipped)
    with pytest.raises(DataError, match=r"member training2017/A00001\.mat fails its checksum"):
        server.get(tmp_path)
    server.files["training2017.zip"] = good
    server.get(tmp_path)


def test_missing_labels_matter_only_where_the_archive_has_none(
    server: Server, tmp_path: Path
) -> None:
    del server.files["REFERENCE-v3.csv"]
    server.get(tmp_path / "original")
    server.files["training2017.zip"] = archive("")
    with pytest.raises(DataError, match=r"REFERENCE-v3\.csv \(the server answers 404\)"):
        server.get(tmp_path / "none")


def one_line_that_says_how(error: DataError, url: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert f"cannot download {url} (no network" in text
    assert "data.root=/path/to/training2017.zip" in text


def test_no_network_is_one_line_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/training2017.zip"
    started = time.perf_counter()
    with pytest.raises(DataError) as caught:
        fetch(url, url, tmp_path)
    assert time.perf_counter() - started < 5
    one_line_that_says_how(caught.value, url)


def test_a_name_server_or_host_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/training2017.zip"
        started = time.perf_counter()
        with pytest.raises(DataError) as caught:
            fetch(url, url, tmp_path)
    assert time.perf_counter() - started < 3
    one_line_that_says_how(caught.value, url)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the download"):
        server.get(tmp_path / "file" / "below")


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    threads = [threading.Thread(target=server.get, args=(tmp_path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(name == "training2017.zip" for name, _ in server.asked) == 1
