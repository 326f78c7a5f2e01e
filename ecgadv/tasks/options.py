"""Options of the tasks that read or compare runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from ecgadv.options import Name, Place, is_whole, list_of
from ecgadv.spelling import whole


@dataclass(frozen=True)
class Evaluate:
    """``evaluate``: a stored run judged again, or answers of readers scored."""

    run: Place | None
    study: Place | None
    study_key: Place | None


@dataclass(frozen=True)
class Report:
    """``report``: figures and tables of a run, or a study for readers."""

    run: Place | None
    vector: bool
    study: bool
    study_records: Annotated[int, Ge(2)]
    study_seconds: Annotated[float, Gt(0)]


@dataclass(frozen=True)
class Track:
    """``track``: stored runs sent to MLflow."""

    run: Place | None


@dataclass(frozen=True)
class Benchmark:
    """``benchmark``: methods on the same cases."""

    methods: Annotated[Sequence[str], list_of("names of methods", lambda v: isinstance(v, str))]
    metrics: Annotated[Sequence[str], list_of("names of metrics", lambda v: isinstance(v, str))]
    per_class: Annotated[int, Ge(1)]
    scaling: Annotated[
        Sequence[int],
        list_of("whole numbers", lambda v: is_whole(v) and v >= 1, empty=True, read=whole),
    ]
    scaling_method: Name
    out: Place | None
