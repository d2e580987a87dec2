"""The model of a pool as a folder for others: its best trial is run once more, and its model kept.

Runs keep no weights of trials that are over: most of them are of models that nobody wants, and a
trial can be had again from what it is known by. What comes of it is compared with what the run
measured, and the card says whether it is the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.text import Text

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, Damaged, SandboxError, Stopped
from djsandbox_ray.hooks.conduct import Conduct
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.plans import plan_of
from djsandbox_ray.hooks.study import Inputs, Study, configured_family
from djsandbox_ray.identity import content_id
from djsandbox_ray.masking import masked
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.records import (
    Pool,
    Pools,
    RankingRow,
    RungReport,
    TrialRecord,
    TrialState,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.reporting.ranking import Unit, interval
from djsandbox_ray.storage.hub import CARD, card, check_push, push
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.seals import shortened
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.exporting import EXPORTED, broken_export, read_exported
from djsandbox_ray.trials.stopping.stopping import STOPPING, Competition, StoppingConfig
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.run import stoppable
from djsandbox_ray.workflows.state import alone

_LONGEST_NAME = 120
_RANKING = "ranking.csv"


@dataclass(frozen=True)
class _Choice:
    """The trial whose model is wanted."""

    study: Study
    pool: Pool
    record: TrialRecord
    """What the run has measured."""

    @property
    def folder(self) -> str:
        """Where in the storage its model lies."""
        plain = re.sub(r"[^\w.&=-]+", "_", self.pool.id)
        if len(plain) > _LONGEST_NAME:
            plain = f"{plain[:_LONGEST_NAME]}-{content_id('pool', self.pool.id)[-6:]}"
        return f"{self.study.context.folder}/models/{plain}-seed{self.record.spec.seed}"


def export_model(
    name: str,
    pool: str,
    url: str,
    console: Console,
    *,
    seed: int | None = None,
    output: str | None = None,
    repository: str | None = None,
) -> str:
    """Train a trial of a pool again, and leave its model as a folder with a card.

    Args:
        name: of the run.
        pool: its id.
        url: the storage.
        console: to print on.
        seed: of the trial; by default the one whose score was best.
        output: also copy the model to this folder, a new or empty one.
        repository: of the hub, to which it is pushed.

    Returns:
        Where in the storage the model lies.

    Raises:
        BadInput: no such run or pool, none of its trials is known under the settings and libraries
            that there are now, models of this kind cannot be had as files, or the one that is
            there is not what was written.
        Held: the run is at work.
        SandboxError: the training failed, or the hub does not answer.
    """
    storage = Storage(url)
    run = FinishedRun(storage, name)
    found = run.pools_with(pool)
    config = run.config()
    _check(config, [of for _, of in found], output, repository)
    with (
        Progress(console) as progress,
        alone(storage, name.partition("/")[0], progress.note) as lease,
    ):
        connect(config.cluster.address, config.cluster.cpus)
        tracker = TRACKERS.get(config.tracking.type)(config.tracking, storage)
        context = Context(config, storage, run.folder, tracker, progress, lease=lease)
        chosen = _chosen(context, run, found, seed)
        if storage.exists(f"{chosen.folder}/{CARD}"):  # written last
            _check_whole(storage, chosen.folder)
            progress.note("the model is there already")
        else:
            again = _trained(chosen)
            lease.check()
            text = _card(run, chosen, again)
            storage.write_bytes(f"{chosen.folder}/{CARD}", text.encode())
    _say(console, f"model   {storage.shown}/{chosen.folder}")
    if output is not None:
        storage.download(chosen.folder, Path(output))
        _say(console, f"copied  {output}")
    if repository is not None:
        with temporary() as local:
            storage.download(chosen.folder, local)
            _say(console, f"pushed  {push(local, repository, 'model', [EXPORTED])}")
    return chosen.folder


def _check_whole(storage: Storage, folder: str) -> None:
    """See that a model is what was written: it may be copied or pushed now.

    Raises:
        Damaged: it is not. What somebody may have changed on purpose is not replaced.
    """
    if wrong := shortened(broken_export(storage, folder)):
        raise Damaged(
            f"{storage.shown}/{wrong}",
            f"remove the folder {storage.shown}/{folder}, and the same command trains the model "
            "again",
            folder,
        )


def _check(
    config: RunConfig, pools: Sequence[Pool], output: str | None, repository: str | None
) -> None:
    """Refuse before any work what cannot come to a good end.

    Raises:
        BadInput: says what.
    """
    if why := configured_family(config).unexportable():
        raise BadInput(f"models of {config.trials.model.type!r} cannot be exported: {why}")
    if broken := next((pool for pool in pools if pool.breaks), None):
        raise BadInput(
            f"pool {broken.id!r} breaks a policy, and no model of it is exported: "
            f"{'; '.join(broken.breaks)}"
        )
    if output is not None:
        place = Path(output)
        if "://" in output or place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise BadInput(f"--output {output}: a new or empty folder of this machine is needed")
    if repository is not None:
        check_push(repository)


def _chosen(
    context: Context, run: FinishedRun, found: Sequence[tuple[Pools, Pool]], seed: int | None
) -> _Choice:
    """Return the completed trial of a pool whose score is best, or that of a seed.

    Raises:
        BadInput: there is none.
    """
    score = context.config.evaluation.score_metrics()
    dataset, evaluation = run.dataset(), run.evaluation()
    choices: list[tuple[float, _Choice]] = []
    for pools, pool in found:
        inputs = Inputs(dataset, evaluation, pools)
        study = Study(context, plan_of(pools, context.config), inputs)
        for record in _completed(study, pool):
            assert record.final is not None
            mean = score.mean(record.final.metrics)
            if mean is not None and seed in (None, record.spec.seed):
                choices.append((mean, _Choice(study, pool, record)))
    if not choices:
        which = "" if seed is None else f" with seed {seed}"
        raise BadInput(
            f"no trial of {found[0][1].id!r}{which} was completed with the settings, code and "
            "libraries that there are now; `djsandbox run` trains what is missing"
        )
    return max(choices, key=lambda choice: choice[0])[1]


def _completed(study: Study, pool: Pool) -> Iterator[TrialRecord]:
    for record in study.known.values():
        completed = record.state is TrialState.COMPLETED and record.final is not None
        if completed and record.spec.pool == pool.id:
            yield record


def _trained(chosen: _Choice) -> TrialRecord:
    """Run a trial from its beginning, or from where this was cut off, and keep its model.

    Raises:
        SandboxError: it failed.
    """
    study, known = chosen.study, chosen.record.spec
    context, settings = study.context, study.context.config.evaluation
    # With checkpoints of its own: from the last one of another run it would go on without a model.
    spec = replace(known, id=content_id("exported", known.id))
    context.progress.stage(f"train {chosen.pool.id} seed {spec.seed}", total=spec.total)
    records: list[TrialRecord] = []

    def on_record(record: TrialRecord) -> None:
        context.check()
        records.append(record)
        context.progress.update(done=record.reports[-1].samples if record.reports else 0)

    with _stopped():
        run_trials(
            [spec],
            replace(Conduct(study).shared([spec]), export=chosen.folder),
            STOPPING.get("none")(StoppingConfig(type="none")),
            Competition(
                pools=study.pools,
                specs=[spec],
                known={},
                rungs=study.rungs,
                metrics=settings.score_metrics(),
                aggregate=settings.kind,
                decisions=[],
                on_decision=lambda decision: None,
            ),
            on_record,
            folder=context.folder,
            await_room=context.await_room,
        )
    last = records[-1]
    if last.state is not TrialState.COMPLETED:
        raise SandboxError(f"{spec.pool} seed {spec.seed} was not trained again: {last.error}")
    return last


@contextmanager
def _stopped() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a training.

    Raises:
        Stopped: by either.
    """
    try:
        with stoppable():
            yield
    except KeyboardInterrupt:
        raise Stopped("the same command goes on from the last rung") from None


def _card(run: FinishedRun, chosen: _Choice, again: TrialRecord) -> str:
    """Return the card: data, budget, metrics, and how the model is loaded."""
    study, pool, spec = chosen.study, chosen.pool, chosen.record.spec
    config, storage = study.context.config, study.context.storage
    exported = read_exported(storage, chosen.folder)
    before, now = chosen.record.final, again.final
    assert before is not None
    assert now is not None
    dataset, pools = study.inputs.dataset, study.inputs.pools
    draw = pool.draw_size or pools.draw_size
    model = yaml.safe_dump(masked(config.trials.model.model_dump(mode="json")), sort_keys=False)
    stages = "" if spec.total == spec.budget else f" ({spec.total:,} in all stages)"
    paragraphs = [
        f"The model of one trial of the run `{run.name}`: pool `{pool.id}`, seed {spec.seed}. It "
        "was trained to compare data, with the same small budget as those of all other pools.",
        "## Data",
        f"{draw:,} rows drawn from the {pool.size:,} of the pool{_of(pool)}; the dataset "
        f"(`{dataset.id}`) has {dataset.rows:,}.",
        "## Training",
        f"{spec.budget:,} samples seen{stages}, with these settings:",
        f"```yaml\n{model}```",
        "## Metrics",
        _verdict(study.context, pool),
        _metrics(now, study.suite.scored != ""),
        _same(before, now),
    ]
    if exported.loading:
        paragraphs += ["## Loading", f"```python\n{exported.loading}\n```"]
    library = {"library_name": exported.library} if exported.library else {}
    task = {"pipeline_tag": exported.task} if exported.task else {}
    return card(f"{run.name}: {pool.id}", list(filter(None, paragraphs)), {**library, **task})


def _of(pool: Pool) -> str:
    if pool.statistic is None or pool.low is None or pool.high is None:
        return ""
    by = f", computed by `{pool.operator}`," if pool.operator else ""
    return f" (`{pool.statistic}`{by} between {pool.low:g} and {pool.high:g})"


def _verdict(context: Context, pool: Pool) -> str:
    """Say what the run found about the pool, by the first ranking that has it."""
    names = [name for name in context.storage.names(context.folder) if name.endswith(_RANKING)]
    for name in sorted(names, key=lambda name: name != _RANKING):
        for row in context.storage.read_rows(RankingRow, f"{context.folder}/{name}"):
            if row.pool == pool.id:
                unit = Unit.of(context.config.evaluation.kind)
                return (
                    f"Against the controls the pool is **{row.verdict}**: {unit.text(row.change)} "
                    f"{unit} ({interval(row, unit)}), over {row.seeds} seeds."
                )
    return ""


def _metrics(report: RungReport, answers: bool) -> str:
    rows = [f"| {name} | {value:.6g} |" for name, value in sorted(report.metrics.items())]
    table = "\n".join(["| metric | value |", "|---|---|", *rows])
    # Stored answers are scored, whoever has given them.
    said = "\n\nAnswers to questions are those that the run has stored." if answers else ""
    return f"{table}{said}"


def _same(before: RungReport, now: RungReport) -> str:
    """Say whether a trial that was run again came to what the run had measured."""
    other = {
        name: (value, now_value)
        for name, value, now_value in _pairs(before, now)
        if value != now_value
    }
    if not other:
        return "The trial was run again for its weights: loss and metrics are those of the run."
    name, (value, now_value) = next(iter(other.items()))
    return (
        f"The trial was run again for its weights: {len(other)} of {len(before.metrics) + 1} "
        f"numbers differ from those of the run, such as {name}: {now_value:.6g}, there "
        f"{value:.6g}. Other processors round sums in another order."
    )


def _pairs(before: RungReport, now: RungReport) -> Iterator[tuple[str, float, float]]:
    yield "the training loss", before.loss, now.loss
    for name, value in before.metrics.items():
        yield name, value, now.metrics.get(name, math.nan)


def _say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)
