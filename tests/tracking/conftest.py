import shutil

import pytest

from ecgadv.tracking import database


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated database without a run; making one takes ten seconds, copying it none."""
    root = tmp_path_factory.mktemp("store")
    database.prepare(f"sqlite:///{root}/mlflow.db", "other", root / "mlartifacts")
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path, empty_store):
    """A ``paths.root`` whose store exists already."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path
