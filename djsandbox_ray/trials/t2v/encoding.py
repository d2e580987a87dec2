"""What codec and text encoder make of the samples of a study: computed once, by actors, and stored.

Latents lie in ``latents/<id>/`` of the storage, known by the codec, the clips' shape and the
dataset; embeddings in ``prompts/<id>/``, known by what of the base makes them. Pools, seeds,
studies and runs share them: each adds the rows and captions that are not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.trials.family import Preparing, TrialData, device_for
from djsandbox_ray.trials.growing import GrowingTable, Keys, RowsJob, Wanted, grow
from djsandbox_ray.trials.model_folders import folder_content, made_base
from djsandbox_ray.trials.t2v.base_folder import (
    CODEC,
    TRANSFORMER,
    encoded_prompts,
    prompt_pipeline,
)
from djsandbox_ray.trials.t2v.codec import Codec, Ratios, load_codec
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.denoisers import TransformerAdapter
from djsandbox_ray.trials.t2v.latents import ROW, latent_batches, latents_schema
from djsandbox_ray.trials.t2v.stored_prompts import SCHEMA, TEXT, prompt_batch, text_key
from djsandbox_ray.trials.t2v.training_clips import Clips

VERSION = 2
"""Part of the ids of tables: to be raised when the same samples are encoded otherwise."""
LATENTS, STILL, PROMPTS = "latents", "still latents", "prompts"
"""Names of what is stored: of clips, of their first frames, of captions."""
_CAPTIONS_AT_ONCE = 1 << 16
_PROMPTS_AT_ONCE = 16


def of_set(name: str) -> str:
    """Return the name under which the latents of an evaluation set are stored, by its id."""
    return f"latents of {name}"


@dataclass(frozen=True)
class ClipsJob(RowsJob):
    """Decodes clips, and encodes them."""

    table: str
    """URI of the sample table."""
    base: str
    """URI of the folder of the base."""
    shape: ClipShape
    half: bool
    """Whether the codec may stay in half precision."""
    still: bool
    """Whether each clip is its first frame, repeated."""
    device: tuple[float, float]
    """CPUs and GPUs of an actor."""

    def batches(self, schema: pa.Schema, keys: Keys) -> Iterator[pa.RecordBatch]:
        """Encode the clips of some rows."""
        _pipeline.cache_clear()  # a device may have no room for both
        clips = Clips(self.table, self.shape, keys, still=self.still)
        return latent_batches(clips, _codec(self.base, device_for(*self.device), self.half))


@dataclass(frozen=True)
class PromptsJob(RowsJob):
    """Makes embeddings of prompts by the pipeline of the base."""

    base: str
    """URI of the folder of the base."""
    adapter: type[TransformerAdapter]
    texts: dict[int, str]
    """By their keys."""
    tokens: int
    """Most of them per prompt."""
    half: bool
    """Whether embeddings are kept in half precision."""
    device: tuple[float, float]
    """CPUs and GPUs of an actor."""

    def batches(self, schema: pa.Schema, keys: Keys) -> Iterator[pa.RecordBatch]:
        """Encode some prompts."""
        _codec.cache_clear()
        pipeline = _pipeline(self.base, self.adapter, device_for(*self.device))
        texts = [self.texts[key] for key in keys.tolist()]
        for start in range(0, len(texts), _PROMPTS_AT_ONCE):
            some = texts[start : start + _PROMPTS_AT_ONCE]
            found = encoded_prompts(pipeline, self.adapter, some, self.tokens, self.half)
            yield prompt_batch(some, found, self.half)


@lru_cache(maxsize=1)
def _codec(base: str, device: str, half: bool) -> Codec:
    with made_base(base) as folder:
        return load_codec(folder / CODEC, device, half)


@lru_cache(maxsize=1)
def _pipeline(base: str, adapter: type[TransformerAdapter], device: str) -> Any:
    with made_base(base) as folder:
        return prompt_pipeline(folder, adapter, device)


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
        wanted = {**dict(self._clips()), **dict(self._prompts())}
        seconds = grow([*wanted.values()], self.work.growth)
        return {name: one.table.uri for name, one in wanted.items()}, seconds

    def _clips(self) -> Iterator[tuple[str, Wanted]]:
        config, work = self.config, self.work
        if config.latents != "store":
            return
        if config.window == "middle":
            plain, still = work.rows(None, "captions"), work.rows("frames")
            train = (work.dataset, self.data.train)
            for name, rows, frozen in ((LATENTS, plain, False), (STILL, still, True)):
                if len(rows):
                    yield name, self._latents(*train, rows, name, frozen)
        for data, rows in work.suite.denoised().items():
            name = of_set(data)
            yield name, self._latents(data, self.data.evaluation[data], rows, name)

    def _latents(
        self, dataset: str, table: str, rows: Keys, name: str, still: bool = False
    ) -> Wanted:
        config = self.config
        shape = ClipShape(config.frames, config.size, config.stride)
        codec = {name: seal for name, seal in self._content.items() if name.startswith(f"{CODEC}/")}
        clip = [config.frames, list(config.size), config.stride, still]
        stored = GrowingTable(
            self.work.storage,
            f"latents/{content_id('latents', VERSION, codec, clip, dataset, self.numerics)}",
            latents_schema(self.ratios.shape(config.frames, *config.size)),
            ROW,
        )
        job = ClipsJob(table, self._base, shape, config.precision == "bf16", still, self._device)
        return Wanted(stored, rows, name, lambda _: job)

    def _prompts(self) -> Iterator[tuple[str, Wanted]]:
        config = self.config
        if config.prompts != "store":
            return
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
            said = {key: texts[key] for key in lacking.tolist()}
            given = (self._base, self.adapter, said, config.prompt_tokens, half, self._device)
            return PromptsJob(*given)

        yield PROMPTS, Wanted(stored, np.array(sorted(texts), dtype=np.int64), PROMPTS, job)

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

    @property
    def _device(self) -> tuple[float, float]:
        return self.work.growth.cpus, self.work.growth.gpus
