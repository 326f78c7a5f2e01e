from collections.abc import Callable
from pathlib import Path

import pytest
from small_sources import beat, write_cinc

from ecgadv.records import cinc2017
from ecgadv.records.base import RecordSet


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def real(cinc2017_root: Path, tmp_path_factory: pytest.TempPathFactory) -> RecordSet:
    """All real recordings, parsed once a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGADV_CACHE", str(tmp_path_factory.mktemp("cache")))
        return cinc2017.load(cinc2017_root)


@pytest.fixture
def small_cinc(tmp_path: Path) -> Callable[..., Path]:
    """Write four records, one a class; keywords go to :func:`write_cinc`."""

    def make(**options: object) -> Path:
        names = [f"A{i:05d}" for i in range(1, 5)]
        signals = {name: beat(3000 + 300 * i, i) for i, name in enumerate(names)}
        labels = dict(zip(names, "ANO~", strict=True))
        return write_cinc(tmp_path / "training2017", signals, labels, **options)  # type: ignore[arg-type]

    return make
