"""What codec and text encoder make of the samples of a study: computed once, by actors, and stored.

Latents lie in ``latents/<id>/`` of the storage, known by the codec, the clips' shape and the
dataset; embeddings in ``prompts/<id>/``, known by what of the base makes them. Pools, seeds,
studies and runs share them: each adds the rows and captions that are not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.actors import PassWorker
from djsandbox_ray.trials.family import Preparing, TrialData, device_for
from djsandbox_ray.trials.growing import GrowingTable, Keys, write_rows
from djsandbox_ray.trials.model_folders import folder_content, made_base
from djsandbox_ray.trials.t2v.base_folder import (
    CODEC,
    TRANSFORMER,
    encoded_prompts,
    prompt_pipeline,
)
from djsandbox_ray.trials.t2v.codec import Ratios, load_codec
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.denoisers import TransformerAdapter
from djsandbox_ray.trials.t2v.latents import ROW, latent_batches, latents_schema
from djsandbox_ray.trials.t2v.stored_prompts import SCHEMA, TEXT, prompt_batch, text_key
from djsandbox_ray.trials.t2v.training_clips import Clips

VERSION = 1
"""Part of the ids of tables: to be raised when the same samples are encoded otherwise."""
LATENTS, STILL, PROMPTS = "latents", "still latents", "prompts"
"""Names of what is stored: of clips, of their first frames, of captions."""
_CAPTIONS_AT_ONCE = 1 << 16
_PROMPTS_AT_ONCE = 16


def of_set(name: str) -> str:
    """Return the name under which the latents of an evaluation set are stored, by its id."""
    return f"latents of {name}"


@dataclass(frozen=True)
class ClipsJob:
    """What encodes clips."""

    table: str
    """URI of the sample table."""
    target: str
    """URI of the latents."""
    base: str
    """URI of the folder of the base."""
    shape: ClipShape
    rows: Keys
    half: bool
    """Whether the codec may stay in half precision."""
    still: bool
    """Whether each clip is its first frame, repeated."""
    cpus: float
    gpus: float


class LatentsWorker(PassWorker):
    """Decodes clips, encodes them, and writes their latents."""

    def __init__(self, job: ClipsJob) -> None:
        super().__init__()
        self._job = job

    @cached_property
    def _codec(self) -> Any:
        job = self._job
        device = device_for(job.cpus, job.gpus)
        with made_base(job.base) as folder:
            return load_codec(folder / CODEC, device, job.half)

    def compute(self, task: dict[str, Any]) -> dict[str, Any]:
        """Encode some of the rows."""
        job = self._job
        rows = job.rows[task["start"] : task["stop"]]
        clips = Clips(job.table, job.shape, rows, still=job.still)
        schema = latents_schema(self._codec.ratios.shape(job.shape.frames, *job.shape.size))
        fragments = write_rows(job.target, schema, latent_batches(clips, self._codec))
        return {"rows": len(rows), "fragments": fragments}


@dataclass(frozen=True)
class PromptsJob:
    """What encodes prompts."""

    target: str
    """URI of the embeddings."""
    base: str
    """URI of the folder of the base."""
    adapter: type[TransformerAdapter]
    texts: tuple[str, ...]
    tokens: int
    """Most of them per prompt."""
    half: bool
    """Whether embeddings are kept in half precision."""
    cpus: float
    gpus: float


class PromptsWorker(PassWorker):
    """Makes embeddings of prompts by the pipeline of the base, and writes them."""

    def __init__(self, job: PromptsJob) -> None:
        super().__init__()
        self._job = job
        self._folder = ExitStack()  # of the base: it stays until the actor ends

    @cached_property
    def _pipeline(self) -> Any:
        job = self._job
        device = device_for(job.cpus, job.gpus)
        folder: Path = self._folder.enter_context(made_base(job.base))
        return prompt_pipeline(folder, job.adapter, device)

    def compute(self, task: dict[str, Any]) -> dict[str, Any]:
        """Encode some of the texts."""
        job = self._job
        texts = job.texts[task["start"] : task["stop"]]
        batches = (
            prompt_batch(some, self._encoded(some), job.half)
            for start in range(0, len(texts), _PROMPTS_AT_ONCE)
            for some in [texts[start : start + _PROMPTS_AT_ONCE]]
        )
        return {"rows": len(texts), "fragments": write_rows(job.target, SCHEMA, batches)}

    def _encoded(self, texts: Sequence[str]) -> Any:
        job = self._job
        return encoded_prompts(self._pipeline, job.adapter, texts, job.tokens, job.half)


@dataclass(frozen=True)
class Encoding:
    """Has stored what the trials of a study read of each sample.

    Args:
        config: of the model.
        adapter: of its transformer.
        ratios: of its codec.
        data: the tables.
        work: what trials read, and who computes.
        numerics: what numbers hang on beside all that.
    """

    config: T2vModelConfig
    adapter: type[TransformerAdapter]
    ratios: Ratios
    data: TrialData
    work: Preparing
    numerics: dict[str, str]

    def store(self) -> tuple[dict[str, str], float]:
        """Compute what lacks.

        Returns:
            The URIs of tables, by what is in them, and the seconds that actors lived.

        Raises:
            BadInput: a clip or the base cannot be read.
        """
        stored: dict[str, str] = {}
        seconds = 0.0
        for name, table, grown in self._tables():
            stored[name] = table.uri
            seconds += grown
        return stored, seconds

    def _tables(self) -> Iterator[tuple[str, GrowingTable, float]]:
        config, work = self.config, self.work
        if config.latents == "store":
            if config.window == "middle":
                plain, still = work.rows(None, "captions"), work.rows("frames")
                train = (work.dataset, self.data.train)
                for name, rows, frozen in ((LATENTS, plain, False), (STILL, still, True)):
                    if len(rows):
                        yield (name, *self._latents(*train, rows, name, frozen))
            for data, rows in work.suite.denoised().items():
                name = of_set(data)
                yield (name, *self._latents(data, self.data.evaluation[data], rows, name))
        if config.prompts == "store":
            yield (PROMPTS, *self._prompts())

    def _latents(
        self, dataset: str, table: str, rows: Keys, name: str, still: bool = False
    ) -> tuple[GrowingTable, float]:
        config, growth = self.config, self.work.growth
        shape = ClipShape(config.frames, config.size, config.stride)
        codec = {name: seal for name, seal in self._content.items() if name.startswith(f"{CODEC}/")}
        clip = [config.frames, list(config.size), config.stride, still]
        stored = GrowingTable(
            self.work.storage,
            f"latents/{content_id('latents', VERSION, codec, clip, dataset, self.numerics)}",
            latents_schema(self.ratios.shape(config.frames, *config.size)),
            ROW,
        )

        def job(lacking: Keys) -> ClipsJob:
            half = config.precision == "bf16"
            given = (table, stored.uri, self._base, shape, lacking, half, still)
            return ClipsJob(*given, growth.cpus, growth.gpus)

        return stored, stored.grow(rows, LatentsWorker, job, name, growth)

    def _prompts(self) -> tuple[GrowingTable, float]:
        config, growth = self.config, self.work.growth
        others = (f"{TRANSFORMER}/", f"{CODEC}/")
        encoder = {
            name: seal
            for name, seal in self._content.items()
            if "/" in name and not name.startswith(others)
        }
        how = [self.adapter.__name__, config.prompt_tokens]
        stored = GrowingTable(
            self.work.storage,
            f"prompts/{content_id('prompts', VERSION, encoder, how, self.numerics)}",
            SCHEMA,
            TEXT,
        )
        texts = {text_key(text): text for text in self._texts()}

        def job(lacking: Keys) -> PromptsJob:
            half = config.precision == "bf16"
            said = tuple(texts[key] for key in lacking.tolist())
            given = (stored.uri, self._base, self.adapter, said, config.prompt_tokens, half)
            return PromptsJob(*given, growth.cpus, growth.gpus)

        wanted = np.array(sorted(texts), dtype=np.int64)
        return stored, stored.grow(wanted, PromptsWorker, job, PROMPTS, growth)

    def _texts(self) -> list[str]:
        """Return all that models are told, the empty caption first: without it, nothing drops."""
        table, rows = SampleTable(self.data.train), self._every_row
        captions = [
            text
            for start in range(0, len(rows), _CAPTIONS_AT_ONCE)
            for text in table.take(rows[start : start + _CAPTIONS_AT_ONCE], ["text"])[
                "text"
            ].to_pylist()
        ]
        return list(dict.fromkeys(["", *captions, *self.work.suite.told()]))

    @property
    def _every_row(self) -> NDArray[np.int64]:
        drawn = [np.zeros(0, np.int64), *self.work.drawn.values()]
        return np.unique(np.concatenate(drawn))

    @cached_property
    def _content(self) -> dict[str, Any]:
        return folder_content(self._base, nested=True)

    @property
    def _base(self) -> str:
        if self.data.base is None:
            raise SandboxError("the model has a base, but nobody has made it")
        return self.data.base
