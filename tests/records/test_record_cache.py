from pathlib import Path

import numpy as np
import pytest

from ecgadv.records import cache
from ecgadv.records.base import RecordSet


class Builder:
    """Counts how often the source is parsed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> RecordSet:
        self.calls += 1
        rng = np.random.default_rng(0)
        rows = [(f"R{i}", "N", rng.integers(-500, 500, 400).astype(np.int16)) for i in range(3)]
        return RecordSet.pack("test", rows, gain=1000.0, skipped={"R9": "because"})


def folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_the_second_time_reads_the_same_set_without_parsing() -> None:
    build = Builder()
    first, second = (cache.cached("test", "abc", build) for _ in range(2))
    assert build.calls == 1
    assert isinstance(second.samples, np.memmap)
    assert (second.ids, second.digest, second.skipped, second.gain) == (
        first.ids, first.digest, {"R9": "because"}, 1000.0,
    )  # fmt: skip
    np.testing.assert_array_equal(second.samples, Builder()().samples)
    cache.cached("test", "other key", build)
    assert build.calls == 2


@pytest.mark.parametrize("file", ["samples.npy", "offsets.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbled", "missing"])
def test_a_damaged_cache_is_rebuilt(file: str, damage: str) -> None:
    build = Builder()
    good = cache.cached("test", "abc", build)
    samples = np.array(good.samples)
    (folder,) = cache.cache_root().iterdir()
    path = folder / file
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "garbled":
        path.write_bytes(b"[1, 2]")
    else:
        path.unlink()
    again = cache.cached("test", "abc", build)
    assert build.calls == 2
    np.testing.assert_array_equal(again.samples, samples)
    cache.cached("test", "abc", build)
    assert build.calls == 2, "the rebuilt cache must be good"


def test_a_write_that_breaks_off_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = np.save
    calls = []

    def breaks(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        saved(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "save", breaks)
    records = cache.cached("test", "abc", Builder())
    assert len(records) == 3, "a full disk costs time, not the result"
    assert folders(cache.cache_root()) == []


def test_a_cache_that_cannot_be_made_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "file"))
    assert len(cache.cached("test", "abc", Builder())) == 3


def test_whoever_comes_second_keeps_the_first_copy() -> None:
    build = Builder()
    cache.cached("test", "abc", build)
    (folder,) = cache.cache_root().iterdir()
    cache.save(build(), folder)
    assert folders(cache.cache_root()) == [folder.name]
    assert len(cache.load(folder)) == 3
