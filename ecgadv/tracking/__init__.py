"""Tracking of runs in MLflow. Importing this package does not import MLflow."""

from ecgadv.tracking.tracker import NullTracker, Tracker, open_tracker
from ecgadv.tracking.upload import is_uploaded, upload
from ecgadv.tracking.uris import resolve_uri, ui_command

__all__ = [
    "NullTracker",
    "Tracker",
    "is_uploaded",
    "open_tracker",
    "resolve_uri",
    "ui_command",
    "upload",
]
