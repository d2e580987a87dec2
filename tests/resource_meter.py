"""What Ray itself says is in use, sampled while something runs."""

from __future__ import annotations

import threading
import time

import ray
from factories import wait_until

INTERVAL = 0.05


class ResourceMeter:
    """A context in which the cluster's resources in use are integrated over time.

    Nothing else may run on the cluster: the meter waits until nothing is in use, before and after.

    Attributes:
        cpu_seconds: CPUs in use times seconds; known when the context is left.
        gpu_seconds: the same of GPUs.
        seconds: how long anything was in use.
    """

    def __enter__(self) -> ResourceMeter:
        self.cpu_seconds = self.gpu_seconds = self.seconds = 0.0
        self._wait_until_idle()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._wait_until_idle()
        finally:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        before, used = time.perf_counter(), in_use()
        while not self._stop.wait(INTERVAL):
            now = time.perf_counter()
            self.cpu_seconds += used["CPU"] * (now - before)
            self.gpu_seconds += used["GPU"] * (now - before)
            self.seconds += (now - before) if any(used.values()) else 0.0
            before, used = now, in_use()

    @staticmethod
    def _wait_until_idle() -> None:
        wait_until(lambda: not any(in_use().values()), lambda: f"in use: {in_use()}", INTERVAL)


def in_use() -> dict[str, float]:
    """Return the CPUs and GPUs that are reserved now; Ray knows them to four digits."""
    there, free = ray.cluster_resources(), ray.available_resources()
    names = ("CPU", "GPU")
    return {name: round(there.get(name, 0.0) - free.get(name, 0.0), 4) for name in names}
