"""What thousands of trials cost the driver, beyond Tune: the race, records, progress, requests.

Tune is replaced by a loop that tells the package the same: which trials start, report and end, one
event after the other. Scores are made up, so that all seconds are the package's own. The storage
counts requests, and with ``--delay`` each takes so long, as in an object store.

Seconds of the loop hold up Tune, those of its CPU and those in which it waits: for a request, or
for the threads beside it, which write records and the journal. Trials take no time here, so that
it waits longer for them than where models are trained. What the loop may cost is at most 60 s of
CPU for 10,000 trials, and 0.1 s of waiting per trial where a request takes 30 ms:

    python benchmarks/many_trials.py
    python benchmarks/many_trials.py --delay 0.03

The second is to be run on a machine with nothing else to do: whoever waits for a CPU waits, too.

Where every event looked at all trials, and every record was written before the next event, the
same program took 21 ms of the loop per trial of 150 and 37 of 300 (the scheduler alone 6 and 19),
on the way to hours for 10,000, and made 22 requests per trial in the loop: 0.7 s at 30 ms each.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import StringIO
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import fsspec
import numpy as np
from fsspec import AbstractFileSystem
from rich.console import Console

from djsandbox_ray.config import checked
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.watch import Watch
from djsandbox_ray.records import (
    Aggregate,
    Pool,
    PoolKind,
    RungReport,
    StudyPlan,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.tracking.journal import Recorded
from djsandbox_ray.tracking.tracker import NullTracker, RunInfo
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition, Decision
from djsandbox_ray.trials.trial_records import TrialStore
from djsandbox_ray.trials.worker import Shared

RUNGS = (100, 200, 400)
CONFIG: dict[str, Any] = {
    "name": "many",
    "storage": "counted://store",
    "dataset": {"type": "shapes", "samples": 10},
    "operators": ["text_length_filter"],
    "trials": {"model": {"type": "clip"}, "budget": RUNGS[-1]},
    "evaluation": {
        "dataset": {"type": "shapes", "samples": 10},
        "metrics": [{"type": "retrieval", "k": [1]}],
    },
}


class Counted(AbstractFileSystem):  # type: ignore[misc]
    """A store in memory that counts requests by who makes them, and takes its time for each."""

    protocol = "counted"
    delay: ClassVar[float] = 0.0
    requests: ClassVar[Counter[str]] = Counter()
    """By the loop, and by threads beside it."""
    files: ClassVar[dict[str, bytes]] = {}
    names: ClassVar[defaultdict[str, dict[str, None]]] = defaultdict(dict)
    """What is in a folder, so that listing one does not take longer the more files there are."""

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Say what a file or folder is."""
        return self._info(self._asked(path))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a folder."""
        path = self._asked(path)
        if not self.names.get(path):
            raise FileNotFoundError(path)
        inside = [f"{path}/{name}" for name in self.names[path]]
        return [self._info(one) for one in inside] if detail else inside

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        """Read a file."""
        if (path := self._asked(path)) not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a file."""
        path = self._asked(path)
        self.files[path] = value
        while "/" in path:
            folder, _, name = path.rpartition("/")
            self.names[folder][name] = None
            path = folder

    def rm(self, path: str, recursive: bool = False, maxdepth: Any = None) -> None:
        """Remove a file or a folder: a store is asked for the names, and then to remove them."""
        path = self._asked(self._asked(path))
        for name in list(self.names.pop(path, ())):
            self.rm(f"{path}/{name}")
        self.files.pop(path, None)
        folder, _, name = path.rpartition("/")
        self.names[folder].pop(name, None)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make no folder: there are none."""

    def _info(self, path: str) -> dict[str, Any]:
        if path in self.files:
            return {"name": path, "size": len(self.files[path]), "type": "file"}
        if self.names.get(path):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def _asked(self, path: str) -> str:
        here = threading.current_thread() is threading.main_thread()
        self.requests["loop" if here else "beside"] += 1
        if self.delay:
            time.sleep(self.delay)
        return str(self._strip_protocol(path))


fsspec.register_implementation("counted", Counted)


class Clock:
    """Seconds by part; those of a part inside another count for the inner one only."""

    def __init__(self) -> None:
        self.cpu: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        """Without a CPU."""
        self._open: list[str] = []
        self._since = _moment()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as a part."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose seconds count as a part."""

        def inside(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return inside

    def _turn(self) -> None:
        now = _moment()
        if self._open:
            cpu, wall = now[0] - self._since[0], now[1] - self._since[1]
            self.cpu[self._open[-1]] += cpu
            self.waiting[self._open[-1]] += wall - cpu
        self._since = now


def _moment() -> tuple[float, float]:
    """Return the seconds of CPU that this thread has had, and those that have gone by."""
    return time.thread_time(), time.perf_counter()


class Loop:
    """Tune's controller, as far as the package can see it; it knows the scores of all trials."""

    search_alg = SimpleNamespace(is_finished=lambda: True)

    def __init__(self, scheduler: Any, reporter: Any, slots: int, clock: Clock) -> None:
        self._scheduler, self._reporter, self._clock = scheduler, reporter, clock
        self._free, self._events = slots, deque[Any]()
        self._trials: list[Any] = []
        self._left = 0

    def fit(self, specs: Sequence[TrialSpec], score: Callable[[TrialSpec, int], float]) -> None:
        """Run all trials to their ends."""
        for spec in specs:
            config = {"trial": {"id": spec.id, "pool": spec.pool, "seed": spec.seed}}
            trial = SimpleNamespace(
                trial_id=spec.id, config=config, status="PENDING", spec=spec, rung=0, last=None
            )
            self._trials.append(trial)
            self._scheduler.on_trial_add(self, trial)
        self._left = len(specs)
        pending = deque(self._trials)
        process = {"id": "p", "startup": 0.0}
        while self._left:
            with self._clock.part("scheduler"):
                chosen = self._scheduler.choose_trial_to_run(self)
            if chosen is not None:
                chosen.status = "PENDING"
                pending.appendleft(chosen)
            if self._free and pending:
                self._free -= 1
                trial = pending.popleft()
                with self._clock.part("reporter"):
                    self._reporter.on_trial_start(0, self._trials, trial)
                trial.status = "RUNNING"
                self._events.append(trial)
            elif self._events:
                trial = self._events.popleft()
                samples = RUNGS[trial.rung]
                metrics = {"m": score(trial.spec, samples)}
                report = RungReport(samples, 1.0, metrics, 1.0, 0.1, 0)
                self._report(trial, {"report": asdict(report), "process": process})
            with self._clock.part("reporter"):
                self._reporter.on_step_end(0, self._trials)

    def _report(self, trial: Any, result: dict[str, Any]) -> None:
        report = result["report"]
        trial.last = {
            "report/samples": report["samples"],
            **{f"report/metrics/{name}": value for name, value in report["metrics"].items()},
        }
        trial.rung += 1
        decision = "STOP"
        if trial.rung < len(RUNGS):
            with self._clock.part("scheduler"):
                decision = self._scheduler.on_trial_result(self, trial, trial.last)
        with self._clock.part("reporter"):
            self._reporter.on_trial_result(0, self._trials, trial, result)
        if decision == "CONTINUE":
            self._events.append(trial)
        elif decision == "PAUSE":
            self.pause_trial(trial)
        elif decision == "STOP":
            self.stop_trial(trial)

    def get_trials(self) -> list[Any]:
        """Return all trials."""
        return self._trials

    def pause_trial(self, trial: Any) -> None:
        """Take a trial's place."""
        trial.status = "PAUSED"
        self._free += 1

    def _schedule_trial_train(self, trial: Any) -> None:
        self._events.append(trial)

    def stop_trial(self, trial: Any) -> None:
        """End a trial."""
        if trial.status == "PAUSED":
            self._scheduler.on_trial_remove(self, trial)
        else:
            self._free += 1
            with self._clock.part("scheduler"):
                self._scheduler.on_trial_complete(self, trial, trial.last)
        with self._clock.part("reporter"):
            self._reporter.on_trial_complete(0, self._trials, trial)
        trial.status = "TERMINATED"
        self._left -= 1


def study(trials: int, seeds: int) -> tuple[dict[str, Pool], list[TrialSpec]]:
    """Return pools, twice the square root of them controls, and about so many trials."""
    arms = max(8, trials // seeds)
    controls = max(5, round(2 * arms**0.5))
    names = [f"control/{n}" for n in range(controls)]
    names += [f"s{n}/high" for n in range(arms - controls)]
    kinds = {True: PoolKind.CONTROL, False: PoolKind.BUCKET}
    pools = {
        name: Pool(name, kinds[name.startswith("control")], name, 0, 10, name) for name in names
    }
    specs = [
        TrialSpec(f"{name.replace('/', '-')}-{seed}", name, seed, name, RUNGS[-1])
        for seed in range(seeds)
        for name in pools
    ]
    return pools, specs


@dataclass(frozen=True)
class Made:
    """What a run has come to."""

    trials: int
    decisions: list[Decision]
    requests: Counter[str]
    cpu: float
    """Seconds of all threads."""
    wall: float


def run(trials: int, seeds: int, slots: int, clock: Clock) -> Made:
    """Run a study, and say how its trials ended."""
    pools, specs = study(trials, seeds)
    rng = np.random.default_rng(0)
    worth = {name: 0.02 * rng.normal() if "control" not in name else 0.0 for name in pools}
    noise = dict(zip([s.id for s in specs], 0.01 * rng.normal(size=len(specs)), strict=True))

    def score(spec: TrialSpec, samples: int) -> float:
        return float(0.5 + worth[spec.pool] + noise[spec.id]) * (1 - samples**-0.5)

    storage = Storage("counted://store")
    config = checked(CONFIG, "many_trials.py")
    tracker = Recorded(NullTracker(Component(type="none"), storage), "runs/many")
    progress = Progress(Console(file=StringIO()))
    context = Context(config, storage, "runs/many", tracker, progress)
    plan = StudyPlan("trials", tuple(range(seeds)), race=True, optional=False)
    decisions: list[Decision] = []
    last: dict[str, TrialState] = {}

    def decided(decision: Decision) -> None:
        decisions.append(decision)
        storage.write_json(f"runs/many/race/{decision.samples}.json", asdict(decision))
        watch.decided(decision)

    def on_record(record: TrialRecord) -> None:
        last[record.spec.id] = record.state
        with clock.part("tracker and journal"):
            watch.track(record)
        with clock.part("progress, events, metrics"):
            watch.take(record)

    family = FAMILIES.get("clip")(config.trials.model)
    shared = Shared(
        family=family,
        prepared=None,
        suite=Suite([], []),
        pools=pools,
        assignments="",
        draw_size=10,
        base_seed=0,
        rungs=RUNGS,
        storage=storage.url,
        resources=Resources(),
        retries=0,
    )
    competition = Competition(
        pools=pools,
        specs=specs,
        known={},
        rungs=RUNGS,
        metrics=None,
        aggregate=Aggregate.MEAN_RELATIVE,
        decisions=(),
        on_decision=clock.timed("decisions", decided),
    )
    stopping = STOPPING.get("race")
    race = stopping(stopping.Config(type="race"))

    def tuner(racing: Sequence[TrialSpec], *others: Any) -> Any:
        scheduler, reporter = others[2], others[3]
        loop = Loop(scheduler, reporter, slots, clock)
        return SimpleNamespace(fit=lambda: loop.fit(racing, score))

    with EventLog(storage, "many"), patch("djsandbox_ray.trials.engine._tuner", tuner):
        tracker.start(RunInfo("many", "many"))
        progress.stage("trials", total=len(specs))
        watch = Watch(context, plan, pools, specs, {}, RUNGS)
        Counted.requests.clear()
        cpu, wall = time.process_time(), time.perf_counter()
        with clock.part("engine"):
            run_trials(
                specs,
                shared,
                race,
                competition,
                on_record,
                "tune",
                await_room=lambda group, what: None,
                save=TrialStore(storage).save,
                on_places=clock.timed("progress, events, metrics", watch.placed),
            )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        requests = Counter(Counted.requests)
        tracker.finish(True)
    print(f"{len(specs)} trials of {len(pools)} pools, {slots} at a time: ", end="")
    print(", ".join(f"{count} {state}" for state, count in sorted(Counter(last.values()).items())))
    return Made(len(specs), decisions, requests, cpu, wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=64, help="trials that run at once")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that a request takes")
    args = parser.parse_args()
    Counted.delay = args.delay
    clock = Clock()
    made = run(args.trials, args.seeds, args.slots, clock)
    for decision in made.decisions:
        print(f"at {decision.samples} samples: {len(decision.stopped)} pools given up")
    count = made.trials
    print(f"{'seconds of the loop':32}{'CPU s':>10}{'ms per trial':>15}{'waiting':>15}")
    for name in [name for name, _ in clock.cpu.most_common()]:
        print(_line(name, clock.cpu[name], count, clock.waiting[name]))
    print(_line("all", clock.cpu.total(), count, clock.waiting.total()))
    print(_line("with the threads beside it", made.cpu, count))
    print(f"{'wall time':32}{made.wall:10.2f}{1000 * made.wall / count:15.3f}")
    for who in ("loop", "beside"):
        print(f"requests per trial, {who}: {made.requests[who] / count:.2f}")


def _line(name: str, seconds: float, trials: int, waiting: float | None = None) -> str:
    """Return a line of the table: seconds, and the milliseconds per trial of both."""
    waited = "" if waiting is None else f"{1000 * waiting / trials:15.3f}"
    return f"{name:32}{seconds:10.2f}{1000 * seconds / trials:15.3f}{waited}"


if __name__ == "__main__":
    main()
