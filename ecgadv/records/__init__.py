"""Recordings: reading them, preparing them for a classifier, choosing which ones to attack."""

from ecgadv.records.base import (
    CLASSES,
    Batch,
    Record,
    RecordSet,
    class_letter,
    class_name,
)
from ecgadv.records.preprocessing import FS, N_SAMPLES
from ecgadv.records.selection import Selection, select

__all__ = [
    "CLASSES",
    "FS",
    "N_SAMPLES",
    "Batch",
    "Record",
    "RecordSet",
    "Selection",
    "class_letter",
    "class_name",
    "select",
]
