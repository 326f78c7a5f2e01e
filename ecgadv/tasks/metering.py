"""What a measurement costs, and on what machine: time, memory, versions."""

from __future__ import annotations

import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

from ecgadv import backend


class Meter:
    """Time and the largest resident memory of this process while a block runs.

    Memory is looked at every 50 ms.
    """

    seconds = cpu_seconds = before = peak = 0.0

    def __enter__(self) -> Meter:
        import psutil

        self._process = psutil.Process()
        self.before = self.peak = self._process.memory_info().rss / 1e6
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._started, self._busy = time.perf_counter(), time.process_time()
        return self

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss / 1e6)

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._busy
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, self._process.memory_info().rss / 1e6)


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "device": backend.device_kind(),
        "versions": backend.versions() | {"python": platform.python_version()},
    }
