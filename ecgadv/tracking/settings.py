"""Options of tracking."""

from __future__ import annotations

from dataclasses import dataclass

from ecgadv.options import Name


@dataclass(frozen=True)
class Settings:
    """``tracking``; where ``uri`` may lead is for :func:`ecgadv.tracking.uris.resolve_uri`."""

    uri: Name | None
    experiment: Name
    system_metrics: bool
