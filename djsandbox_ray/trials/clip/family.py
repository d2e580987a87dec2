"""CLIP as a model family: a fresh model per trial, evaluated at every rung."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Artefact, Reads
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.records import RungReport
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.clip.arch import (
    CountingEncoder,
    Tokenizer,
    build_model,
    encoding_flops,
    load_arch,
    training_flops,
)
from djsandbox_ray.trials.clip.export import export_hugging_face, export_open_clip
from djsandbox_ray.trials.clip.samples import Images, Samples, share_samples
from djsandbox_ray.trials.clip.training import (
    VERSION,
    DeviceArrays,
    Training,
    TrainingConfig,
    normalise,
)
from djsandbox_ray.trials.exporting import Exported
from djsandbox_ray.trials.family import ModelFamily, Prepared, TrialData, TrialTask, device_for
from djsandbox_ray.trials.loop import resolved
from djsandbox_ray.trials.staged import train_stages
from djsandbox_ray.trials.stages import Stage

_ENCODE_ROWS = 512


def _known(arch: str) -> str:
    try:
        load_arch(arch)
    except BadInput as error:
        raise ValueError(str(error)) from error
    return arch


class ClipConfig(TrainingConfig, Component):
    """An open_clip model and how it is trained."""

    arch: Annotated[str, AfterValidator(_known)] = "tiny"
    """``tiny`` or ``small`` (32 pixels), a model of open_clip (``ViT-B-32``), or a JSON file."""


class Clip(ModelFamily):
    """Contrastive image-text training from scratch."""

    Config = ClipConfig
    OFFERS: ClassVar[tuple[Reads, ...]] = ("embeddings", "files")
    LIBRARIES: ClassVar[tuple[str, ...]] = ("torch", "open_clip_torch")
    config: ClipConfig

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        self.arch = load_arch(config.arch)

    def identity(self) -> Any:
        """Return the architecture itself in place of its name, and the hyper-parameters."""
        settings = self.config.model_dump(mode="json")
        return {**settings, "arch": self.arch, "version": VERSION}

    def resolved(self, gpus: float) -> Self:
        """Decide ``precision: auto``."""
        return type(self)(resolved(self.config, gpus))

    def numerics(self, gpus: float) -> dict[str, str]:
        """Add the precision, as it is resolved."""
        return {**super().numerics(gpus), "precision": resolved(self.config, gpus).precision}

    def least_rows(self, budget: int) -> int:
        """Return the size of a batch: in it, a row that stands twice is its own negative."""
        return min(self.config.batch_size, budget)

    def flops_per_sample(self) -> float:
        """Count a forward and a backward pass."""
        return training_flops(self.arch)

    def evaluation_flops(self, suite: Suite) -> float | None:
        """Count forward passes of the images and texts that the evaluators ask for."""
        if not suite.reads <= {"embeddings"}:
            return None  # nobody counts what programs do
        counter = CountingEncoder(int(self.arch["embed_dim"]))
        suite.run(counter)
        image, text = encoding_flops(self.arch)
        return image * counter.image_rows + text * counter.text_rows

    def prepared_by(self) -> Any:
        """Return the architecture: its image size and vocabulary."""
        return [type(self).__qualname__, self.arch]

    def prepare(self, data: TrialData) -> Prepared:
        """Decode and tokenise all tables once."""
        tables = {data.train, *data.evaluation.values()}
        made = {uri: share_samples(uri, self.arch, data.nodes) for uri in sorted(tables)}
        samples = {uri: found for uri, (found, _) in made.items()}
        sets = {name: samples[uri] for name, uri in data.evaluation.items()}
        return Prepared((samples[data.train], sets), sum(held for _, held in made.values()))

    def train(
        self, task: TrialTask, shared: tuple[Samples, Mapping[str, Samples]]
    ) -> Iterator[RungReport]:
        """Train one model; the tables come from :meth:`prepare`."""
        samples, evaluation = shared
        device = device_for(task.cpus, task.gpus)
        images, tokens = samples.images(task.rows), samples.tokens(task.captions)
        draw = DeviceArrays(images, tokens, task.seed, device)

        def begin(stage: Stage, earlier: Mapping[str, Any]) -> Training:
            model = build_model(self.arch, task.seed, shareable=True).to(device)
            return Training(model, draw, self.config, device, task.group, task.pulse.beat)

        def evaluate(training: Training, samples: int) -> dict[str, float]:
            plain = training.whole()
            if plain is None:
                return {}
            return task.evaluate(ClipEncoder(plain, self.arch, evaluation, device))

        yield from train_stages(task, [Stage("train", task.rungs[-1])], begin, evaluate)


class ClipEncoder:
    """A trained model as evaluators see it; embeddings of a set's images are computed once.

    Args:
        model: an open_clip model.
        arch: its configuration.
        samples: of every evaluation set, by its id.
        device: a torch device name.
    """

    def __init__(
        self, model: Any, arch: dict[str, Any], samples: Mapping[str, Samples], device: str
    ) -> None:
        self._model = model
        self._arch = arch
        self._samples = samples
        self._tokenizer = Tokenizer(arch)
        self._device = device
        self._images: dict[str, NDArray[np.float32]] = {}

    def save(self, folder: Path) -> Artefact:
        """Write a Hugging Face CLIP folder: weights, tokenizer and image processor."""
        export_hugging_face(self._model, self._arch, folder)
        threads = require("torch", "clip").get_num_threads()
        return Artefact(folder, cpus=threads, gpus=float(self._device != "cpu"))

    def export(self, folder: Path) -> Exported:
        """Write open_clip's folder."""
        loading = export_open_clip(self._model, self._arch, folder)
        return Exported("open_clip", "zero-shot-image-classification", loading)

    def images(self, data: EvaluationSet) -> NDArray[np.float32]:
        """Embed the image of every row of a set; shape (rows, dimensions)."""
        if data.id not in self._images:
            rows, samples = np.arange(data.rows, dtype=np.int64), self._samples[data.id]
            self._images[data.id] = self._encode(
                rows, lambda some: self._encode_images(samples.images(some))
            )
        return self._images[data.id]

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; shape (len(texts), dimensions)."""
        return self._encode(self._tokenizer(list(texts)), self._encode_tokens)

    def _encode_images(self, pixels: Images) -> Any:
        torch = require("torch", "clip")
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return self._model.encode_image(normalise(images.to(self._device)), normalize=True)

    def _encode_tokens(self, tokens: NDArray[np.int32]) -> Any:
        torch = require("torch", "clip")
        indices = torch.from_numpy(tokens).to(device=self._device, dtype=torch.int64)
        return self._model.encode_text(indices, normalize=True)

    def _encode(self, items: Any, encode: Any) -> NDArray[np.float32]:
        torch = require("torch", "clip")
        training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            parts = [
                encode(items[start : start + _ENCODE_ROWS]).float().cpu().numpy()
                for start in range(0, len(items), _ENCODE_ROWS)
            ]
        self._model.train(training)
        return np.concatenate(parts)
