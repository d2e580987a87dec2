"""Trains the model of ``image_text_similarity_filter`` on trusted data, if there is any."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayTaskError

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.source import SOURCES, stamp_of
from djsandbox_ray.errors import Damaged, Missing
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.study import refuse_small_draw
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Cost, Dataset, Scorer
from djsandbox_ray.storage.lease import RENEWAL, Lease, take
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.seals import broken_below, seals_from_json, seals_of, seals_to_json
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.clip.arch import load_arch, training_flops
from djsandbox_ray.trials.clip.family import Clip
from djsandbox_ray.trials.clip.scorer import ScorerConfig, train_scorer
from djsandbox_ray.trials.clip.training import VERSION
from djsandbox_ray.trials.config import worker_bundle

_MARKER = "scorer.json"


class TrainScorer(Hook):
    """A CLIP on trusted data, saved as a Hugging Face folder under ``models/``.

    Runs share it, and the checkpoints on the way to it: one of them trains it at a time.
    """

    VERSION = 1

    def identity(self) -> Any:
        """The trusted data and the training."""
        config = self.config.scorer
        if config is None:
            return None
        source = SOURCES.get(config.dataset.type)(config.dataset)
        return [stamp_of(source), _training(config)]

    def broken(self, output: Scorer | None) -> dict[str, str]:
        """The files of the model."""
        return {} if output is None else _broken(self.storage, output.path)

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
        )
        self.tell_passed_over(source, "scorer")
        check_trusted(config, dataset.rows)
        scorer_id = content_id("scorer", dataset.id, _training(config))
        path = f"models/{scorer_id}"
        if _broken(storage, path):
            # Beside the folder: what is in that is the model.
            with take(
                storage,
                f"{path}.lease",
                f"the scorer {scorer_id}",
                wait=True,
                note=lambda text: self.note(f"scorer: {text}"),
            ) as lease:
                if _broken(storage, path):  # who was waited for may have trained it
                    self._have_trained(config, dataset, path, lease)
        return Scorer(scorer_id, path)

    def _have_trained(
        self, config: ScorerConfig, dataset: Dataset, path: str, lease: Lease
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
        arch = load_arch(config.model.arch)
        done = task.remote(self.storage.url, path, uri, dataset.rows, config, arch)
        while not ray.wait([done], timeout=RENEWAL)[0]:
            lease.check()  # another run would train in the same folders; the task ends with us
        try:
            loss, seconds = ray.get(done)
        except RayTaskError as error:
            raise error.cause from None  # what it says is for the user
        self.account(_cost(config, seconds))
        self.note(f"scorer: training loss {loss:.3f} on {dataset.rows} pairs")


def check_trusted(config: ScorerConfig, rows: int) -> None:
    """Refuse to train the scorer on too few trusted pairs.

    Raises:
        BadInput: there are fewer than in one batch.
    """
    drawn = "there are {rows} trusted pairs"
    refuse_small_draw(Clip(config.model), config.budget, rows, drawn, "scorer")


def _broken(storage: Storage, path: str) -> dict[str, str]:
    """Return what is wrong with the files of a scorer, by path."""
    marker = f"{path}/{_MARKER}"
    try:
        files = storage.read_sealed(marker).get("files")
        return broken_below(storage, path, seals_from_json(files)) if files is not None else {}
    except (Damaged, ValueError) as error:
        return {marker: "is not there" if isinstance(error, Missing) else "is damaged"}


def _training(config: ScorerConfig) -> dict[str, Any]:
    return {
        "model": config.model.model_dump(mode="json"),
        "arch": load_arch(config.model.arch),
        "version": VERSION,
        "budget": config.budget,
        "seed": config.seed,
    }


def _cost(config: ScorerConfig, seconds: float) -> Cost:
    return Cost(
        stage="scorer",
        samples=config.budget,
        flops=config.budget * training_flops(load_arch(config.model.arch)),
        cpu_seconds=seconds * config.resources.cpus_per_worker,
        gpu_seconds=seconds * config.resources.gpus_per_worker,
        wall_seconds=seconds,
    )


def _train(
    url: str, path: str, uri: str, rows: int, config: ScorerConfig, arch: dict[str, Any]
) -> tuple[float, float]:
    """Return the training loss and the seconds it took."""
    start = time.perf_counter()
    storage = Storage(url)
    storage.remove(f"{path}/{_MARKER}")  # from here on the files change
    checkpoint = Checkpoint(url, path.rpartition("/")[2])
    with temporary() as folder:
        loss = train_scorer(uri, rows, config, arch, folder, checkpoint)
        storage.upload(folder, path)
    seals = seals_to_json(seals_of(storage, path))
    mark = {"loss": loss, "rows": rows, "files": seals}
    storage.write_sealed(f"{path}/{_MARKER}", mark)  # last of all
    checkpoint.remove()
    return loss, time.perf_counter() - start
