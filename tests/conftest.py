"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest
from absl import logging as absl_logging
from browser import browser, chromium  # noqa: F401, their names make them fixtures

# TensorFlow's logging library takes the sys.stderr of its import for its own, and closes it when
# logging is configured anew (as Hydra does) while another test's stands in its place: that would be
# pytest's. The process's own is never closed.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def cinc2017_root() -> Path:
    """The real recordings: ``ECGADV_CINC2017``, else beside the checkout; skips without them."""
    named = os.environ.get("ECGADV_CINC2017")
    root = Path(__file__).resolve().parents[1]
    place = Path(named) if named else Path(root).parent / "shared" / "cinc2017" / "training2017.zip"
    if not place.exists():
        pytest.skip("no CinC 2017 recordings here; set ECGADV_CINC2017 to the zip or its folder")
    return place
