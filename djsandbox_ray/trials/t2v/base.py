"""The base of a text-to-video model: a pipeline of diffusers, copied, or a small one, trained."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, field_validator, model_validator

from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.errors import BadInput
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.trials.base import Base, BaseTask
from djsandbox_ray.trials.config import WorkerResources
from djsandbox_ray.trials.model_folders import (
    copy_model,
    folder_content,
    is_there,
    local_folder,
    read_file,
    shipped_arch,
)
from djsandbox_ray.trials.t2v.base_folder import CODEC, TRANSFORMER, load_video_base
from djsandbox_ray.trials.t2v.codec import CONFIG, Ratios, codec_class
from djsandbox_ray.trials.t2v.denoisers import TransformerAdapter, adapter_class
from djsandbox_ray.trials.t2v.flops import denoising_flops
from djsandbox_ray.trials.t2v.small import VERSION, SmallVideoBase, VideoBaseTraining


def _has_class(part: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(part.get("_class_name"), str):
        raise ValueError("_class_name is missing, as diffusers writes it into config.json")
    return part


Part = Annotated[dict[str, Any], AfterValidator(_has_class)]
"""What ``config.json`` of a part of a pipeline says."""


class VideoArchitecture(Section):
    """What a pipeline holds, as its parts' ``config.json`` say it."""

    transformer: Part
    """``{_class_name: WanTransformer3DModel, num_layers: 30, ...}``."""
    vae: Part
    """``{_class_name: AutoencoderKLWan, z_dim: 16}``: what sizes of latents hang on is needed."""

    @field_validator("transformer")
    @classmethod
    def _a_transformer(cls, part: dict[str, Any]) -> dict[str, Any]:
        try:
            adapter_class(part["_class_name"])
        except BadInput as error:
            raise ValueError(str(error)) from error
        return part

    @field_validator("vae")
    @classmethod
    def _a_codec(cls, part: dict[str, Any]) -> dict[str, Any]:
        try:
            codec_class(part).ratios_of(part)
        except BadInput as error:
            raise ValueError(str(error)) from error
        except KeyError as error:
            raise ValueError(f"{part['_class_name']}: {error} is missing") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{part['_class_name']}: {error}") from error
        return part


class VideoBaseConfig(Section):
    """Where the base comes from: ``path``, or ``build`` with ``train``."""

    path: str | None = None
    """A folder or URL with a whole pipeline of diffusers: EasyAnimate, CogVideoX, Wan, LTX or
    HunyuanVideo."""
    architecture: VideoArchitecture | None = None
    """What that holds: as long as it is not there, operations are counted by it, so that a run can
    be planned before anything is downloaded. It decides nothing else."""
    build: str | None = None
    """A small architecture of the package: ``tiny``."""
    train: VideoBaseTraining | None = None
    """How that is trained."""
    resources: WorkerResources = WorkerResources()
    """What making it occupies."""

    @field_validator("build")
    @classmethod
    def _known(cls, build: str | None) -> str | None:
        if build is not None:
            try:
                shipped_arch(__package__, build)
            except BadInput as error:
                raise ValueError(str(error)) from error
        return build

    @model_validator(mode="after")
    def _one_way(self) -> VideoBaseConfig:
        if (self.path is None) == (self.build is None and self.train is None):
            raise ValueError("one of these is needed: path; build and train")
        if (self.build is None) != (self.train is None):
            raise ValueError("build and train go together")
        if self.build is not None and self.architecture is not None:
            raise ValueError(f"architecture is for folders; that of build: {self.build} is known")
        return self


class T2vBase(Base):
    """Makes the base of a text-to-video model.

    Args:
        config: where it comes from.
    """

    def __init__(self, config: VideoBaseConfig) -> None:
        self.config = config
        resources = config.resources
        self.cpus, self.gpus = resources.cpus_per_worker, resources.gpus_per_worker
        self.nodes = resources

    def sources(self) -> dict[str, Source]:
        """Return the trusted clips."""
        train = self.config.train
        return {} if train is None else {"clips": SOURCES.get(train.dataset.type)(train.dataset)}

    def is_there(self) -> bool:
        """Say whether the folder that it is copied from is there."""
        return self.config.path is None or is_there(self.config.path)

    def identity(self) -> Any:
        """Return the content of the folder, or the architecture and how it is trained."""
        config = self.config
        if config.path is not None:
            return {"path": folder_content(config.path, nested=True)}
        train = self._train.model_dump(mode="json", exclude={"dataset"})
        return {"arch": self._arch, "train": train, "version": VERSION}

    def transformer(self) -> dict[str, Any]:
        """Return the settings of the transformer.

        Raises:
            BadInput: there are none where they are looked for.
        """
        if self.config.path is None:
            return dict(self._arch["transformer"])
        written = self._written
        return self._settings(TRANSFORMER) if written is None else dict(written.transformer)

    def ratios(self) -> Ratios:
        """Return how much smaller latents are than frames.

        Raises:
            BadInput: nothing says it where it is looked for.
        """
        if self.config.path is None:
            codec = self._arch["codec"]
            return Ratios(codec["side"], codec["side"], codec["channels"])
        written = self._written
        settings = self._settings(CODEC) if written is None else written.vae
        return codec_class(settings).ratios_of(settings)

    def adapter(self) -> type[TransformerAdapter]:
        """Return the adapter of its transformer."""
        return adapter_class(self.transformer()["_class_name"])

    def samples(self) -> int:
        """Return the samples that the transformer sees."""
        return self.config.train.samples if self.config.train else 0

    def flops(self) -> float:
        """Count the training of the transformer."""
        train = self.config.train
        if train is None:
            return 0.0
        ratios = self.ratios()
        shape = ratios.shape(train.frames, *train.size)
        tokens = self._arch["tokens"]
        each = denoising_flops(self.transformer(), ratios, shape, tokens, frozen=False)
        return train.samples * each

    def make(self, task: BaseTask) -> dict[str, float]:
        """Copy or train it."""
        config = self.config
        if config.path is None:
            return SmallVideoBase(self._train, self._arch, task).make()
        with local_folder(config.path) as folder:
            copy_model(folder, task.folder, nested=True)
        load_video_base(task.folder, "cpu", half=True)
        return {}

    @property
    def _train(self) -> VideoBaseTraining:
        assert self.config.train is not None  # the configuration says so
        return self.config.train

    @property
    def _arch(self) -> dict[str, Any]:
        return shipped_arch(__package__, self.config.build or "")

    @property
    def _written(self) -> VideoArchitecture | None:
        """What is written of the folder, where that is not there."""
        written = self.config.architecture
        return None if written is None or self.is_there() else written

    def _settings(self, part: str) -> dict[str, Any]:
        place = self.config.path or ""
        content = read_file(place, f"{part}/{CONFIG}")
        if content is None:
            raise BadInput(f"trials.model.base.path: {place}: there is no {part}/{CONFIG}")
        try:
            return dict(json.loads(content))
        except ValueError as error:
            raise BadInput(f"{place}/{part}/{CONFIG} is no JSON object: {error}") from error
