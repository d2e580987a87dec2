"""Trains the model of ``image_text_similarity_filter`` on trusted data, if there is any."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray

from djsandbox_ray.dataset.ingest import ingest, outcome
from djsandbox_ray.dataset.source import SOURCES, stamp_of
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.study import refuse_small_draw
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Cost, Dataset, Scorer
from djsandbox_ray.storage.lease import Lease
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.clip.family import Clip
from djsandbox_ray.trials.clip.scorer import ScorerConfig, train_scorer
from djsandbox_ray.trials.config import worker_bundle
from djsandbox_ray.trials.family import check_numerics, identity_of
from djsandbox_ray.trials.shared_folder import SharedFolder, result_under

_MARKER = "scorer.json"


class TrainScorer(Hook):
    """A CLIP on trusted data, saved as a Hugging Face folder under ``models/``.

    Runs share it, and the checkpoints on the way to it.
    """

    VERSION = 2

    def identity(self) -> Any:
        """The trusted data and the training."""
        config = self.config.scorer
        if config is None:
            return None
        source = SOURCES.get(config.dataset.type)(config.dataset)
        return [stamp_of(source), _training(config, _family(config))]

    def broken(self, output: Scorer | None) -> dict[str, str]:
        """The files of the model."""
        return {} if output is None else _folder(self.storage, output.path).broken()

    def run(self) -> Scorer | None:
        """Train and save the scorer; nothing to do without a section ``scorer``."""
        config = self.config.scorer
        if config is None:
            return None
        storage = self.storage
        self.context.progress.stage("scorer")
        source = SOURCES.get(config.dataset.type)(config.dataset)
        dataset = ingest(
            source,
            storage,
            max_rejected=self.config.ingest.max_rejected,
            resources=self.config.ingest.resources,
            await_room=self.context.await_room,
            note=lambda text: self.note(f"scorer: {text}"),
        )
        self.note(f"scorer: {outcome(storage, dataset)}")
        self.tell_found(source, "scorer")
        check_trusted(config, dataset.rows)
        family = _family(config)
        scorer_id = content_id("scorer", dataset.id, _training(config, family))
        path = f"models/{scorer_id}"
        _folder(storage, path).make_once(
            f"the scorer {scorer_id}",
            lambda lease: self._have_trained(config, family, dataset, path, lease),
            lambda text: self.note(f"scorer: {text}"),
        )
        # Of a process that was killed when the model was there.
        Checkpoint(storage.url, scorer_id).remove()
        return Scorer(scorer_id, path)

    def _have_trained(
        self, config: ScorerConfig, family: Clip, dataset: Dataset, path: str, lease: Lease
    ) -> None:
        resources = config.resources
        self.context.await_room([worker_bundle(resources)], "scorer.resources")
        train = ray.remote(
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker,
            resources=resources.demand(),
        )(_train)
        uri = self.storage.uri(dataset.table)
        task = train.options(name="train the scorer")
        numerics = family.numerics(resources.gpus_per_worker)
        known = (dataset.rows, config, family, numerics)
        done = task.remote(self.storage.url, path, uri, *known, lease.owner)
        loss, seconds = result_under(lease, done)
        self.account(_cost(config, family, seconds))
        self.note(f"scorer: training loss {loss:.3f} on {dataset.rows} pairs")


def check_trusted(config: ScorerConfig, rows: int) -> None:
    """Refuse to train the scorer on too few trusted pairs.

    Raises:
        BadInput: there are fewer than in one batch.
    """
    drawn = "there are {rows} trusted pairs"
    refuse_small_draw(Clip(config.model), config.budget, rows, drawn, "scorer")


def _folder(storage: Storage, path: str) -> SharedFolder:
    return SharedFolder(storage, path, _MARKER)


def _family(config: ScorerConfig) -> Clip:
    """Return the model as it trains on the scorer's device."""
    return Clip(config.model).resolved(config.resources.gpus_per_worker)


def _training(config: ScorerConfig, family: Clip) -> dict[str, Any]:
    model = identity_of(family, config.resources.gpus_per_worker)
    return {"model": model, "budget": config.budget, "seed": config.seed}


def _cost(config: ScorerConfig, family: Clip, seconds: float) -> Cost:
    return Cost(
        stage="scorer",
        samples=config.budget,
        flops=config.budget * family.flops_per_sample(),
        cpu_seconds=seconds * config.resources.cpus_per_worker,
        gpu_seconds=seconds * config.resources.gpus_per_worker,
        wall_seconds=seconds,
    )


def _train(
    url: str,
    path: str,
    uri: str,
    rows: int,
    config: ScorerConfig,
    family: Clip,
    numerics: dict[str, str],
    owner: str,
) -> tuple[float, float]:
    """Return the training loss and the seconds it took; ``owner`` is that of the lease.

    Raises:
        Lost: another run trains it now.
        OtherNumbers: this node has other libraries than the driver, after which it is named.
    """
    start = time.perf_counter()
    check_numerics(family, config.resources.gpus_per_worker, numerics)
    checkpoint = Checkpoint(url, path.rpartition("/")[2])
    known: dict[str, Any] = {"rows": rows, "numerics": numerics}

    def fill(folder: Path) -> dict[str, Any]:
        known["loss"] = train_scorer(uri, rows, config, family.arch, folder, checkpoint)
        return known

    _folder(Storage(url), path).write(fill, owner)
    checkpoint.remove()
    return known["loss"], time.perf_counter() - start
