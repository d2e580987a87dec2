"""The extension point: a model family trains one trial and yields a report per rung.

Beside it stands what families have in common: what their numbers hang on, the device, and the clock
of a trial.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from socket import gethostname
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.errors import BadInput, MissingExtra, SandboxError, require
from djsandbox_ray.evaluation.asking import Answerer
from djsandbox_ray.evaluation.denoising import Denoiser
from djsandbox_ray.evaluation.evaluator import Artefact, Encoder, Reads
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.video.wanted import VideoMaker
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport, Spoil
from djsandbox_ray.settings.code import with_code
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.base import Base
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.growing import Growth
from djsandbox_ray.trials.pulse import Pulse
from djsandbox_ray.trials.stages import Stage, flops, total
from djsandbox_ray.trials.strategies.strategy import Group


class Diverged(SandboxError):
    """The training loss is no longer finite; the trial is FAILED and never ranked."""


class OtherNumbers(BadInput):
    """A node has other libraries than the driver, after which trials are named."""


class Evaluate(Protocol):
    """What a family calls with its model, wherever that is to be judged."""

    def __call__(
        self,
        model: Encoder | Artefact | Answerer | VideoMaker | Denoiser,
        samples: int | None = None,
    ) -> dict[str, float]:
        """Return all metrics of a model.

        Args:
            model: as evaluators read it.
            samples: seen in training so far; needed of a model that answers questions or makes
                videos, which are kept.
        """


Keep = Callable[[Callable[[Path], Mapping[str, Any]]], None]
"""Keeps files of a model: it calls with an empty folder what writes them there, on rank 0 alone,
and what that returns is noted down beside them."""


@dataclass(frozen=True)
class TrialTask:
    """One training, as a family sees it."""

    seed: int
    """Decides the initial weights and the order of positions, the same for every pool."""
    rows: NDArray[np.int64]
    """Row ids to train on; shape (draw size,)."""
    captions: NDArray[np.int64]
    """Row ids whose captions are used with ``rows``; the same unless captions are shuffled."""
    rungs: tuple[int, ...]
    """Samples seen at every report, through all stages; the last is the whole training."""
    cpus: float
    """Of this worker."""
    gpus: float
    """Of this worker."""
    checkpoint: Checkpoint
    """A family that saves its state at every rung, and looks for one when it begins, loses at most
    the work since the last rung when it is cut off; one that does not begins anew."""
    group: Group
    """The workers that train the model together; a family is called on every one of them."""
    evaluate: Evaluate
    """The evaluation suite."""
    pulse: Pulse = field(default_factory=Pulse)
    """A family that calls ``pulse.beat()`` at every step is replaced when its steps stop coming
    (``trials.stall_seconds``); of one that does not, only a process that computes nothing is."""
    budget: int = 0
    """Samples seen in the stage that the pool feeds; 0 stands for the whole training."""
    spoil: Spoil | None = None
    """What is to be done to the samples: of ``captions``, :attr:`captions` says it already."""
    keep: Keep | None = None
    """Keeps what was trained, before the last report; None where nobody wants it."""

    def __post_init__(self) -> None:
        if self.budget == 0:
            object.__setattr__(self, "budget", self.rungs[-1])


@dataclass(frozen=True)
class Preparing:
    """What a family works with that stores something of every sample; on the driver."""

    storage: Storage
    dataset: str
    """Id of the dataset that :attr:`TrialData.train` is."""
    drawn: Mapping[Spoil | None, NDArray[np.int64]]
    """Row ids that trials will train on, rising, by what is done to these samples."""
    suite: Suite
    """What models will be asked."""
    growth: Growth
    """Who computes what is not stored yet."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Ids of the datasets that :attr:`TrialData.fixed` are, by their names."""

    def rows(self, *spoils: Spoil | None) -> NDArray[np.int64]:
        """Return the row ids that trials train on with their samples as one of these, rising."""
        some = [self.drawn[one] for one in spoils if one in self.drawn]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *some]))


@dataclass(frozen=True)
class TrialData:
    """The tables and folders that trials of a study read, as URLs that every node reaches."""

    train: str
    """Lance table of the training samples."""
    evaluation: Mapping[str, str]
    """Lance tables of what the model is evaluated on, by id."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Lance tables of :meth:`ModelFamily.sources`, by their names."""
    base: str | None = None
    """Folder of what trials start from and never change."""
    nodes: NodeKind = field(default_factory=NodeKind)
    """Where Ray tasks that prepare run: ``resources=nodes.demand()``."""
    preparing: Preparing | None = None
    """In :meth:`ModelFamily.prepare` alone, of a family that stores something of every sample."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Tables of what was stored then, by what it is."""


@dataclass(frozen=True)
class Prepared:
    """What all trials share."""

    value: Any
    """Sent to every trial process."""
    cpu_seconds: float = 0.0
    """CPUs of the cluster that making it has held, times seconds."""
    gpu_seconds: float = 0.0
    """Of GPUs, likewise."""


class ModelFamily(ABC):
    """A kind of model with its hyper-parameters.

    An instance is made in the driver, prepared once, and sent to every trial process.
    """

    Config: ClassVar[type[Component]] = Component
    OFFERS: ClassVar[tuple[Reads, ...]] = ("embeddings",)
    """What evaluators can read of its models."""
    LAUNCHES: ClassVar[bool] = False
    """Whether one worker starts all processes that a training needs, on all of its GPUs."""
    LIBRARIES: ClassVar[tuple[str, ...]] = ()
    """The installed packages (``torch``) with whose minor versions its numbers may change."""
    CONTENT: ClassVar[tuple[Content, ...]] = ("pairs",)
    """What it can train on, of what the samples of a source may be."""
    SPOILS: ClassVar[tuple[Spoil, ...]] = ("captions",)
    """What must make its models worse: self-tests do it to the samples of a pool."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def lost(self) -> list[str]:
        """Return what of the files that its models are made from is not there, a phrase each.

        Cheap: files are looked for, not read.
        """
        return []

    def identity(self) -> Any:
        """Return plain data that decides the result of a training, beside the task."""
        return self.config.model_dump(mode="json")

    def resolved(self, gpus: float) -> Self:
        """Return the family with all decided that depends on the device and changes the result.

        Args:
            gpus: GPUs of a worker, or a share of one; 0 on CPUs.
        """
        return self

    def libraries(self) -> tuple[str, ...]:
        """Return :attr:`LIBRARIES`, and those that only some configurations train with."""
        return self.LIBRARIES

    def numerics(self, gpus: float) -> dict[str, str]:
        """Return what changes the numbers of a training, beside settings, code and task; by name.

        It is part of a trial's id and stands in its record. Of a library, patch releases and builds
        (``2.14.1+cpu``) do not count: an update that mends a bug must not cost all trials.

        Args:
            gpus: GPUs of a worker, or a share of one; 0 on CPUs.

        Raises:
            BadInput: one of :meth:`libraries` is not installed.
        """
        libraries = {name: _minor_version(name) for name in self.libraries()}
        return {"device": _device_kind(gpus), **libraries}

    def keeps(self) -> bool:
        """Say whether it calls :attr:`TrialTask.keep`: later ones can go on from its models."""
        return False

    def flops_per_sample(self) -> float | None:
        """Return floating-point operations of training on one sample, if the family can count.

        Where there are several stages, of the first, which the pool feeds.
        """
        return None

    def stages(self, budget: int) -> tuple[Stage, ...]:
        """Return the stages of a trial: the probed one first, then what else the model needs.

        Cheap: operations that are counted as :meth:`flops_per_sample` does it are left out of the
        first stage.

        Args:
            budget: samples seen in the stage that the pool feeds.
        """
        return (Stage("train", budget),)

    def counted(self, budget: int) -> tuple[Stage, ...]:
        """Return the stages of a trial with the operations of the first one, too."""
        first, *others = self.stages(budget)
        if first.flops_per_sample is None:
            first = replace(first, flops_per_sample=self.flops_per_sample())
        return (first, *others)

    def flops(self, budget: int) -> float | None:
        """Return the operations of a whole training, all stages together, if they are counted."""
        stages = self.counted(budget)
        return flops(stages, total(stages))

    def mean_flops(self, budget: int) -> float | None:
        """Return the operations per sample of a whole training, if they are counted."""
        whole = self.flops(budget)
        return None if whole is None else whole / total(self.stages(budget))

    def sources(self) -> dict[str, Source]:
        """Return the fixed data of later stages, by name: read once, the same for every trial."""
        return {}

    def base(self) -> Base | None:
        """Return how what trials start from and never change is made, if the model has such a base.

        It is made once; its content is part of the trials' ids, its folder is in
        :attr:`TrialData.base`.
        """
        return None

    def least_rows(self, budget: int) -> int:
        """Return how many rows a draw must have; a study with smaller draws is refused.

        Args:
            budget: samples seen in a training.
        """
        return 1

    def unexportable(self) -> str:
        """Return why others could not have its models as files; empty where they can.

        Cheap: asked before one is trained for that. A model that evaluators are given says how it
        is saved: by ``export`` (:class:`~djsandbox_ray.trials.exporting.Exportable`), or ``save``.
        """
        return "" if "files" in self.OFFERS else "its family has no way to save them"

    def evaluation_flops(self, suite: Suite) -> float | None:
        """Return the operations of one run of the evaluation suite, if the family can count."""
        return None

    def stored_bytes(self, samples: int | None = None) -> dict[str, int]:
        """Return what :meth:`prepare` stores of every sample, in bytes, by what it is.

        Where it stores anything, it is told which samples (:attr:`TrialData.preparing`), and called
        again for a study with others.

        Args:
            samples: that trials draw at most; None where nobody knows yet.

        Raises:
            BadInput: what says how much it is is not there.
        """
        return {}

    def prepare(self, data: TrialData) -> Prepared:
        """Make what all trials share; called once in the driver with Ray connected.

        Args:
            data: what there is; the default hands it on as it is.
        """
        return Prepared(data)

    def prepared_by(self) -> Any:
        """Return plain data that decides what :meth:`prepare` returns, beside the tables."""
        return self.identity()

    @abstractmethod
    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        """Train, and yield one report at each of ``task.rungs`` that is not behind a checkpoint.

        With several workers this runs on all of them, and the reports of rank 0 count.

        Args:
            task: what to train on, and how long.
            shared: the value that :meth:`prepare` has made.

        Raises:
            Diverged: the loss is not finite.
        """


_UNMARKED = {"device": "cpu"}
"""Left out of ids, so that a family without libraries is known on CPUs as it always was."""
_EXTRAS = {
    "diffusers": "t2v",
    "open_clip_torch": "clip",
    "torch": "clip",
    "torchvision": "clip",
    "transformers": "llava",
}
"""Which of our extras brings a library."""


def identity_of(family: ModelFamily, gpus: float) -> Any:
    """Return plain data that decides the result of a training: the code of a user's class, too.

    Args:
        family: as it is resolved for the device.
        gpus: GPUs of a worker, or a share of one; 0 on CPUs.
    """
    identity, numerics = with_code(family.identity(), type(family)), family.numerics(gpus)
    return identity if numerics == _UNMARKED else {"family": identity, "numerics": numerics}


def check_numerics(family: ModelFamily, gpus: float, promised: Mapping[str, str]) -> None:
    """Look whether this process computes the numbers that a trial is named after.

    Args:
        family: that trains.
        gpus: of this worker.
        promised: its :meth:`ModelFamily.numerics` on the driver.

    Raises:
        OtherNumbers: it does not; says what differs, and on which machine.
    """
    found = family.numerics(gpus)
    names = [name for name in {**promised, **found} if promised.get(name) != found.get(name)]
    if names:
        here, there = (
            " and ".join(f"{name} {facts.get(name, 'unknown')}" for name in names)
            for facts in (found, promised)
        )
        raise OtherNumbers(
            f"{gethostname()} has {here}, the driver {there}: the same trial would have other "
            "numbers there; give all nodes one image"
        )


def _minor_version(package: str) -> str:
    """Return the version of an installed package up to its minor one, without importing it."""
    try:
        found = Version(version(package))
    except PackageNotFoundError:
        if package in _EXTRAS:
            raise MissingExtra(package, _EXTRAS[package]) from None
        raise BadInput(
            f"the package {package!r}, by whose version trials are known, is not installed"
        ) from None
    return f"{found.major}.{found.minor}"


def _device_kind(gpus: float) -> str:
    return "cuda" if gpus > 0 else "cpu"


class Clock:
    """The seconds that a trial has trained and evaluated, those before it was cut off included."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._evaluating = 0.0

    def resume(self, report: RungReport) -> None:
        """Go on behind the last report of a checkpoint."""
        self._start -= report.train_seconds + report.evaluation_seconds
        self._evaluating = report.evaluation_seconds

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Count what happens inside as evaluation."""
        begun = time.perf_counter()
        yield
        self._evaluating += time.perf_counter() - begun

    def report(
        self,
        samples: int,
        loss: float,
        metrics: dict[str, float],
        terms: Mapping[str, float] | None = None,
    ) -> RungReport:
        """Return the report of a rung that was reached now; its metrics may be found later."""
        return RungReport(
            samples=samples,
            loss=loss,
            metrics=metrics,
            train_seconds=time.perf_counter() - self._start - self._evaluating,
            evaluation_seconds=self._evaluating,
            time_ms=time.time_ns() // 1_000_000,
            terms=dict(terms or {}),
        )

    def judged(self, report: RungReport, metrics: dict[str, float]) -> RungReport:
        """Return a report with the metrics that were found since."""
        now = time.time_ns() // 1_000_000
        seconds = self._evaluating
        return replace(report, metrics=metrics, evaluation_seconds=seconds, time_ms=now)


def device_for(cpus: float, gpus: float) -> str:
    """Set torch's threads to the CPUs of this process, and return the torch device it works on.

    Raises:
        SandboxError: it was given a GPU, and there is none.
    """
    torch = require("torch", "clip")
    torch.set_num_threads(max(1, int(cpus)))
    if gpus > 0 and not torch.cuda.is_available():
        raise SandboxError("the trial was given a GPU, but torch finds no CUDA device")
    return _device_kind(gpus)


FAMILIES: Registry[ModelFamily] = Registry(
    "model family",
    ModelFamily,  # type: ignore[type-abstract]
    {
        "clip": "djsandbox_ray.trials.clip.family:Clip",
        "command": "djsandbox_ray.trials.command:Command",
        "llava": "djsandbox_ray.trials.llava.family:Llava",
        "vlm": "djsandbox_ray.trials.vlm.family:Vlm",
        "t2v": "djsandbox_ray.trials.t2v.family:T2v",
    },
)
