"""Model families that train nothing and know the truth: whole runs with them take seconds.

Workers import them by name, as classes of a user: ``{"type": "small_family:Taster"}``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.records import RungReport
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialData, TrialTask


class TasterConfig(Component):
    """The section of a family that tastes its rows."""

    learning_rate: float = 1.0
    """Makes no difference but to the identity of trials."""
    pause: float = 0.0
    """Seconds before every report, for tests that kill what is at work."""
    place: str = ""
    """Folder for notes of where it is at work: ``start-*.json`` when a worker begins, and
    ``behind-*.json`` when it is behind its first rung; empty for none. While there is a file
    ``hold`` in it, trials of seed 1 wait at their beginning, with a note ``held-*.json``."""


class Taster(ModelFamily):
    """Its metric is the share of clean pairs in the draw, some noise, and more with every rung."""

    Config = TasterConfig

    def identity(self) -> Any:
        return self.config.model_dump(mode="json", exclude={"pause", "place"})

    def flops_per_sample(self) -> float:
        """Return a number that a bill can be checked with."""
        return 100.0

    def evaluation_flops(self, suite: Suite) -> float:
        """Return another one."""
        return 1000.0

    def train(self, task: TrialTask, shared: TrialData) -> Iterator[RungReport]:
        self.begin(task)
        with task.checkpoint.load() as kept:
            done = 0 if kept is None else int((kept[1] / f"{task.group.rank}.json").read_text())
        where = {
            "from": done,
            "rank": task.group.rank,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
            "machine": Path.home().parent.name,
        }
        self._note("start", where)
        self._hold(task, where)
        noise = np.random.default_rng([task.seed, int(task.rows[0])]).normal(0, 0.02)
        share = self._share(task, shared.train)
        for rung in [rung for rung in task.rungs if rung > done]:
            time.sleep(self.config.pause)
            taste = float(share * (1 - rung**-0.5) + noise)
            report = RungReport(
                rung, 1 - taste, {"taste": taste}, 0.5, 0.1, time.time_ns() // 10**6
            )
            task.checkpoint.save(report, partial(self._write, task.group.rank, rung))
            yield report
            if rung == task.rungs[0]:
                self._note("behind", where)

    def begin(self, task: TrialTask) -> None:
        """Do what goes before."""

    def _hold(self, task: TrialTask, where: dict[str, Any]) -> None:
        hold = Path(self.config.place, "hold")
        if self.config.place and task.seed == 1 and hold.exists():
            self._note("held", where)
            while hold.exists():
                time.sleep(0.05)

    @staticmethod
    def _share(task: TrialTask, table: str) -> float:
        metas = SampleTable(table).take(task.rows, ["meta"])["meta"].to_pylist()
        defects = [json.loads(meta or "{}").get("defect") for meta in metas]
        if defects[0] is None:  # other data than the generator's: the later the better
            return 0.5 + float(task.rows.mean()) / 1e4
        clean = np.array([defect == "clean" for defect in defects])
        return float(np.mean(clean & (task.rows == task.captions)))

    @staticmethod
    def _write(rank: int, rung: int, folder: Path) -> None:
        (folder / f"{rank}.json").write_text(str(rung))

    def _note(self, kind: str, content: dict[str, Any]) -> None:
        if not self.config.place:
            return
        folder = Path(self.config.place)
        folder.mkdir(exist_ok=True)
        unfinished = folder / f"{kind}-{time.time_ns()}-{os.getpid()}.part"
        unfinished.write_text(json.dumps(content))
        unfinished.rename(unfinished.with_suffix(".json"))


def notes(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the notes of one kind, in order."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind}-*.json"))]


class Hoarder(Taster):
    """Keeps as many bytes at every rung as the file ``bytes`` in ``place`` says."""

    def _write(self, rank: int, rung: int, folder: Path) -> None:
        super()._write(rank, rung, folder)
        size = int(Path(self.config.place, "bytes").read_text())
        (folder / f"{rank}.weights").write_bytes(bytes(size))


class Flaky(Taster):
    """Diverges on some draws."""

    def begin(self, task: TrialTask) -> None:
        if int(task.rows[0]) % 7 == 0:
            raise Diverged("the training loss is inf after 32 samples")


class Hopeless(Taster):
    """Never trains."""

    def begin(self, task: TrialTask) -> None:
        raise RuntimeError("there is no hope")


class Stumbling(Taster):
    """Fails on some draws while there is a file at ``place``."""

    def begin(self, task: TrialTask) -> None:
        if Path(self.config.place).is_file() and task.seed == 1 and int(task.rows[0]) % 6 == 0:
            raise RuntimeError("stumbled")

    def _note(self, kind: str, content: dict[str, Any]) -> None:
        pass


class Careless(Taster):
    """Fails on some draws with secrets in its messages, as outside code may."""

    def begin(self, task: TrialTask) -> None:
        if task.seed == 1 and int(task.rows[0]) % 4 == 0:
            secret = os.environ["AWS_SECRET_ACCESS_KEY"]
            address = (
                "http://someone:planted-in-an-error@127.0.0.1/x?token=planted-token-in-an-error"
            )
            raise RuntimeError(f"cannot read {address}\nwith {secret}")


class Talker(Taster):
    """Prints on stdout, on stderr and in a child process, and fails on some draws."""

    def begin(self, task: TrialTask) -> None:
        print(f"seed {task.seed} on rank {task.group.rank}")
        subprocess.run(["echo", "a child process says hello"], check=True)
        if task.seed == 1 and int(task.rows[0]) % 5 == 0:
            print("it will end badly: token=PLANTED", file=sys.stderr)
            raise KeyError("no such thing")
