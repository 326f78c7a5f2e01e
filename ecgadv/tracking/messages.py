"""Warnings of tracking: one line on stderr, whatever logging is set to."""

from __future__ import annotations

import sys

from ecgadv.tracking.uris import hide_password


def one_line(error: BaseException) -> str:
    """The first line of an error's message, cut at 200 characters, without passwords."""
    lines = hide_password(str(error)).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def warn(message: str) -> None:
    """Say that tracking lacks something; the job goes on."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
