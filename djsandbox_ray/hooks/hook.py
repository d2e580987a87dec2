"""The extension point: a hook is one kind of job."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from djsandbox_ray.config import RunConfig
from djsandbox_ray.dataset.debris import told
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.waiting import Bundles, await_room
from djsandbox_ray.records import Cost, Foundation, StudyPlan
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.storage.lease import Lease
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import event
from djsandbox_ray.tracking.tracker import Tracker
from djsandbox_ray.trials.checkpoint import ALONE
from djsandbox_ray.trials.family import ModelFamily, Prepared
from djsandbox_ray.trials.foundation import Ground
from djsandbox_ray.trials.ownership import owner_name

Row = TypeVar("Row")
_NAMES = 1000
"""Of files that were passed over, so many are named in the log."""


class Table(Protocol):
    """A record that stands for a CSV file."""

    @property
    def path(self) -> str:
        """Where it is."""


@dataclass(frozen=True)
class Context:
    """What every hook may use."""

    config: RunConfig
    storage: Storage
    folder: str
    """Of this run, in the storage."""
    tracker: Tracker
    progress: Progress
    prepared: dict[str, tuple[str, Prepared]] = field(default_factory=dict)
    """What model families have prepared in this process, by what decides it, each with the study
    on whose account it is: studies share it."""
    lease: Lease | None = None
    """Of the run, while it runs."""
    foundations: dict[str, Foundation] = field(default_factory=dict)
    """What trials stand on, by the identity of their model, as this process has found it."""
    trains: bool = True
    """Whether models may be trained; else only what needs none is done."""
    caveats: list[str] = field(default_factory=list)
    """What jobs have said by :meth:`caveat`, those that were done before too."""

    @property
    def owner(self) -> str:
        """This driver, in the names of folders that only it writes."""
        if self.lease is None:
            return ALONE
        return owner_name(self.folder.split("/")[1], self.lease.number)

    def check(self) -> None:
        """Make sure that the run is still this driver's, before something of it is written.

        Raises:
            Lost: another process has taken it over.
        """
        if self.lease is not None:
            self.lease.check()

    def caveat(self, line: str) -> None:
        """Say what a job could not do; it is kept in its marker, and stands in the report.

        Args:
            line: begins with what it is about.
        """
        self.caveats.append(line)
        self.progress.note(line)
        event("warning", level=logging.WARNING, message=line)

    def foundation(self, family: ModelFamily) -> tuple[Foundation, Cost]:
        """Return what a family's trials stand on, made now if need be, and what it has cost now."""
        given = {name: one.config.model_dump(mode="json") for name, one in family.sources().items()}
        key = content_id("stands on", family.identity(), given)
        cost = Cost("base", samples=0, flops=0.0, cpu_seconds=0, gpu_seconds=0, wall_seconds=0)
        if key not in self.foundations:
            ground = Ground(self.storage, self.config.ingest, self.await_room, self.progress.note)
            self.foundations[key], cost = ground.lay(family)
        return self.foundations[key], cost

    def await_room(self, group: Bundles, where: str) -> None:
        """Wait until the living nodes have room for a group, as long as ``cluster.wait`` allows.

        Args:
            group: what each worker needs of one node.
            where: the section of the configuration that asks.

        Raises:
            BadInput: there is still no room.
            Lost: another process has taken the run over meanwhile.
        """
        wait = self.config.cluster.wait
        await_room(group, where, wait, lambda text: self.progress.update(waiting=text))
        self.check()


@dataclass(frozen=True)
class PlannedPart:
    """One of several trainings of a job that go on from each other."""

    name: str
    """Which, and on what."""
    trials: int
    samples: int
    """That all of these are trained on together."""
    flops: float | None
    """Operations of that; None: not counted."""


@dataclass(frozen=True)
class Planned:
    """What a job trains at most, and what later jobs may count on of its output."""

    trials: int = 0
    """Those that are known already among them."""
    samples: int = 0
    """That all of these are trained on together."""
    flops: float | None = None
    """Operations of that, where another model than the run's is trained; else None."""
    part_of_first: bool = False
    """Whether its trials are some of those that the study of all pools (``trials``) has anyway."""
    unknown: str = ""
    """Why not all of it can be counted yet; empty where the numbers are bounds."""
    pools: int | None = None
    """Pools in the output, controls included, or pools that it chooses; None: it does not say."""
    draw_size: int | None = None
    """Rows that a trial of these pools draws; None: it does not say."""
    study: StudyPlan | None = None
    """How these pools will be trained, or the study whose trials these are."""
    parts: tuple[PlannedPart, ...] = ()
    """Of a job that trains one thing after the other, what each takes."""


class Hook(ABC):
    """One kind of job: ``run`` takes outputs of earlier jobs and returns a record.

    The annotations of ``run`` are the types that a workflow is checked against; where what it
    returns depends on what it takes, the overloads of ``run`` say so.
    """

    VERSION: ClassVar[int] = 1
    """Of the code that makes the output, a part of its identity: whoever changes what the same
    inputs come to raises it, so that a finished run does the job again. Each hook has its own."""
    SECTIONS: ClassVar[tuple[str, ...]] = ()
    """Sections of the configuration that it needs and that a configuration may be without:
    ``trials``, ``evaluation``."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.config
        self.storage = context.storage
        self.spent = Cost("", samples=0, flops=0.0, cpu_seconds=0, gpu_seconds=0, wall_seconds=0)
        """What ``run`` cost on the cluster; the runner adds the job's name and the wall time."""

    def identity(self) -> Any:
        """Return plain data: all of the configuration that the output depends on."""
        return None

    def path(self, name: str) -> str:
        """Return where a file of this run lies in the storage."""
        return f"{self.context.folder}/{name}"

    def note(self, line: str) -> None:
        """Say something on the terminal, beginning with what it is about."""
        self.context.progress.note(line)

    def tell_found(self, source: Source, stage: str) -> None:
        """Say what a source found out, and what lies among its data and was not read."""
        for line in source.found():
            self.note(f"{stage}: {line}")
        passed = source.passed_over()
        if passed:
            self.note(f"{stage}: passed over: {told(passed)}")
            names = {kind: sorted(those)[:_NAMES] for kind, those in passed.items()}
            counts = {kind: len(those) for kind, those in passed.items()}
            event("files_passed_over", stage=stage, counts=counts, names=names)

    def rows(self, kind: type[Row], table: Table | None) -> list[Row]:
        """Read the rows of a table; none where there is no table."""
        return [] if table is None else self.storage.read_rows(kind, table.path)

    def write_rows(self, kind: type[Row], name: str, rows: Sequence[Row]) -> tuple[str, str]:
        """Write a table of this run; return its path, and its text, by which it is known."""
        path = self.path(name)
        return path, self.storage.write_rows(kind, path, rows)

    def write_sealed(self, name: str, value: Mapping[str, Any]) -> str:
        """Write plain data with a checksum, for ``storage.read_sealed``; return the path."""
        path = self.path(name)
        self.storage.write_sealed(path, value)
        return path

    def write_bytes(self, name: str, data: bytes) -> str:
        """Write a file; return the path."""
        path = self.path(name)
        self.storage.write_bytes(path, data)
        return path

    def keep(self, output: Any) -> bool:
        """Say whether the output settles the job; if not, the same command does the job again."""
        return True

    def broken(self, output: Any) -> dict[str, str]:
        """Return what is wrong with what the output stands for outside the run's folder.

        Of its files there, the runner takes care. It is called before a job counts as done.

        Returns:
            How each file or folder, by its path, is not as it was made; empty where all is well.
        """
        return {}

    def account(self, cost: Cost) -> None:
        """Take down what ``run`` cost."""
        self.spent = cost

    def ahead(self, *args: Any, **kwargs: Any) -> Planned:
        """Say what ``run`` would train at most: the plan counts it, and may refuse it.

        It is called with what ``run`` is called with, by name. In place of a record that an earlier
        job has yet to make stands what that job says here. A job that trains nothing need not
        answer.

        Raises:
            BadInput: a parameter that ``run`` would refuse, too.
        """
        return Planned()

    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the job; a killed job is called again and may find its own leftovers."""


HOOKS: Registry[Hook] = Registry(
    "hook",
    Hook,  # type: ignore[type-abstract]
    {
        "accept": "djsandbox_ray.hooks.acceptance:Accept",
        "base": "djsandbox_ray.hooks.base:MakeBase",
        "cluster_metrics": "djsandbox_ray.hooks.clusters:ClusterMetrics",
        "cluster_statistics": "djsandbox_ray.hooks.clusters:ClusterStatistics",
        "combine": "djsandbox_ray.hooks.combine:CombinePools",
        "confirmation": "djsandbox_ray.hooks.confirmation:Confirm",
        "confirmation_pools": "djsandbox_ray.hooks.confirmation:ChooseForConfirmation",
        "diversity": "djsandbox_ray.hooks.diversity:MeasureDiversity",
        "evolve": "djsandbox_ray.hooks.evolve:Evolve",
        "ingest": "djsandbox_ray.hooks.ingest:Ingest",
        "ingest_evaluation": "djsandbox_ray.hooks.ingest:IngestEvaluation",
        "insights": "djsandbox_ray.hooks.insights:WriteInsights",
        "interactions": "djsandbox_ray.hooks.interactions:FindInteractions",
        "judge": "djsandbox_ray.hooks.judge:Judge",
        "leaks": "djsandbox_ray.hooks.ingest:Leaks",
        "learning_rate": "djsandbox_ray.hooks.learning_rate:CheckLearningRate",
        "ledger": "djsandbox_ray.hooks.ledger:AddUp",
        "noise": "djsandbox_ray.hooks.noise:MeasureNoise",
        "pools": "djsandbox_ray.hooks.pools:BuildPools",
        "recipe": "djsandbox_ray.hooks.recipe:WriteRecipe",
        "refine": "djsandbox_ray.hooks.thresholds:Refine",
        "repetition": "djsandbox_ray.hooks.repetition:RepeatOrExpand",
        "report": "djsandbox_ray.hooks.report:WriteReport",
        "scaling": "djsandbox_ray.hooks.scaling:ScaleCompute",
        "scorer": "djsandbox_ray.hooks.scorer:TrainScorer",
        "search": "djsandbox_ray.hooks.search:SearchThresholds",
        "statistics": "djsandbox_ray.hooks.statistics:ComputeStatistics",
        "top_k": "djsandbox_ray.hooks.choice:ChooseTop",
        "train": "djsandbox_ray.hooks.train:Train",
    },
)
