"""The tracker for Weights & Biases: a group per sandbox run, and in it a run per trial.

What was sent of every trial is noted beside W&B's own files: it takes steps in their order only,
and what is written offline it cannot be asked for.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import TrialRecord, TrialState
from djsandbox_ray.storage.half_written import written
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.queued import Queued, QueuedConfig, Writer
from djsandbox_ray.tracking.rungs import mark, numbers, unsent
from djsandbox_ray.tracking.tracker import DatasetInput, PoolVerdict, RunInfo

_SHOWN = (".png",)
"""Endings of the files that are shown as pictures."""


class WandbConfig(QueuedConfig):
    """Where Weights & Biases keeps its runs."""

    type: str = "wandb"
    project: str = Field("djsandbox", min_length=1, max_length=128)
    """The project that the runs belong to."""
    entity: str | None = None
    """A user or a team; by default that of the key in WANDB_API_KEY."""
    mode: Literal["offline", "online"] = "offline"
    """offline: files that ``wandb sync`` sends whenever you like; online: sent as they come."""
    folder: str | None = None
    """A folder of this machine for W&B's files; by default a local storage."""


class WandbTracker(Queued):
    """Hands everything to Weights & Biases.

    Raises:
        BadInput: no folder is named, and the storage is not on a local disk.
        MissingExtra: the package is not installed.
    """

    Config = WandbConfig
    config: WandbConfig

    def __init__(self, config: WandbConfig, storage: Storage) -> None:
        super().__init__(config, storage)
        if config.folder is None and not storage.is_local:
            raise BadInput(
                "tracking.folder: W&B writes to a local folder first, and the storage "
                f"{storage.shown!r} is none: name one"
            )
        require("wandb", "wandb")
        self._folder = Path(config.folder or storage.url)

    @property
    def ui_command(self) -> str:
        """The command that sends what was written offline; online, the address of the project."""
        if self.config.mode == "offline":
            return f"wandb sync {shlex.quote(str(self._folder))}/wandb/offline-run-*"
        entity = f"{self.config.entity}/" if self.config.entity else ""
        return f"https://wandb.ai/{entity}{self.config.project}"

    @property
    def receiver(self) -> str:
        """The project."""
        return f"Weights & Biases ({self.config.mode}, {self.config.project})"

    def open(self, run: RunInfo) -> WandbRuns:
        """Return what writes the runs of a sandbox run."""
        return WandbRuns(self.config, self._folder, run)


@dataclass(frozen=True)
class _Sent:
    """What W&B has of a trial."""

    mark: str = ""
    """Of its reports."""
    state: str = ""
    attempt: int = 0
    """Another one with other results is another run: what was logged cannot be taken back."""


class WandbRuns(Writer):
    """Writes the runs of one sandbox run to Weights & Biases.

    Args:
        config: project, mode.
        folder: for W&B's files.
        run: the sandbox run.
    """

    def __init__(self, config: WandbConfig, folder: Path, run: RunInfo) -> None:
        self._config, self._folder, self._run = config, folder, run
        self._group = f"{run.name}-{content_id('wandb', run.key)[-6:]}"
        self._notes = folder / "wandb" / f"{self._group}.json"
        self._open: dict[str, Any] = {}
        """W&B's runs that go on, by trial; the parent's is empty."""

    def start(self) -> None:
        """Begin the run of the whole, or take it up again."""
        _ = self._parent

    def dataset(self, dataset: DatasetInput) -> None:
        """Add the digest of a dataset to the settings of the run."""
        key = f"dataset/{dataset.context}"
        self._parent.config.update({key: dataset.digest}, allow_val_change=True)

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Log the reports of a trial that are not there, and end its run with it."""
        spec, sent = record.spec, self._sent.get(record.spec.id, _Sent())
        new = unsent(record.reports, sent.mark)
        if new is None:
            self._end(spec.id, ok=False)
            sent, new = _Sent(attempt=sent.attempt + 1), record.reports
        if not new and sent.state == record.state:
            return
        facts = {**params, **tags, **{f"rows/{one.name}": one.digest for one in inputs}}
        name = f"{spec.pool} seed {spec.seed}"
        run = self._begin(spec.id, name, tags.get("stage", "trials"), facts, sent.attempt)
        for report in new:
            run.log(numbers(report), step=report.samples)
        run.config.update({"state": str(record.state)}, allow_val_change=True)
        if record.error:
            run.summary["error"] = record.error
        marked = mark(record.reports) if new else sent.mark
        self._note(spec.id, replace(sent, mark=marked, state=str(record.state)))
        if record.state is not TrialState.RUNNING:
            self._end(spec.id, ok=record.state is not TrialState.FAILED)

    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        """Log the verdicts of a study as a table, which sorts by any column."""
        wandb = require("wandb", "wandb")
        rows = [[one.rank, one.pool, one.change, one.verdict] for one in pools]
        table = wandb.Table(columns=["rank", "pool", "change", "verdict"], data=rows)
        self._parent.log({f"verdicts/{stage}": table})

    def metrics(self, numbers: Mapping[str, float], time_ms: int) -> None:
        """Put numbers of the run into its summary."""
        self._parent.summary.update(dict(numbers))

    def artifact(self, name: str, data: bytes) -> None:
        """Show a picture; of other files keep a version as an artifact."""
        wandb = require("wandb", "wandb")
        with temporary() as scratch:
            file = scratch / Path(name).name
            file.write_bytes(data)
            if file.suffix in _SHOWN:
                self._parent.log({name: wandb.Image(str(file))})
                return
            kept = wandb.Artifact(f"{self._group}-{name.replace('/', '-')}", type="result")
            kept.add_file(str(file), name=name)  # copied now, sent later
            self._parent.log_artifact(kept)

    def describe(self, text: str) -> None:
        """Put what the run has found into its notes."""
        self._parent.notes = text

    def end(self, ok: bool) -> None:
        """End W&B's runs, that of the whole last."""
        parent = self._parent
        for trial in [trial for trial in self._open if trial]:
            self._end(trial, ok=False)
        parent.finish(exit_code=0 if ok else 1)
        del self._open[""]

    @property
    def _parent(self) -> Any:
        """W&B's run of the whole, begun at its first use."""
        datasets = {f"dataset/{one.context}": one.digest for one in self._run.datasets}
        facts = {**self._run.params, **self._run.tags, **datasets}
        return self._begin("", self._run.name, "run", facts)

    @cached_property
    def _sent(self) -> dict[str, _Sent]:
        """What W&B has, by trial."""
        noted = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        return {trial: _Sent(**sent) for trial, sent in noted.items()}

    def _begin(
        self, trial: str, name: str, kind: str, facts: Mapping[str, str], attempt: int = 0
    ) -> Any:
        """Return W&B's run of a trial, begun or taken up again if need be."""
        if trial not in self._open:
            self._folder.mkdir(parents=True, exist_ok=True)
            wandb = require("wandb", "wandb")
            self._open[trial] = wandb.init(
                project=self._config.project,
                entity=self._config.entity,
                mode=self._config.mode,
                dir=str(self._folder),
                id=content_id("wandb", self._run.key, trial, attempt),
                resume="allow",
                reinit="create_new",  # several are open at once
                name=name,
                group=self._group,
                job_type=kind,
                config=dict(facts),
                settings=wandb.Settings(console="off", silent=True, disable_git=True),
            )
        return self._open[trial]

    def _end(self, trial: str, ok: bool) -> None:
        run = self._open.pop(trial, None)
        if run is not None:
            run.finish(exit_code=0 if ok else 1)

    def _note(self, trial: str, sent: _Sent) -> None:
        self._sent[trial] = sent
        noted = {name: asdict(one) for name, one in self._sent.items()}
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        with written(self._notes) as file:
            file.write(json.dumps(noted).encode())
