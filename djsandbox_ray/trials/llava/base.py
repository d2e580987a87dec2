"""The base of a LLaVA: copied from folders, or small and trained on trusted data."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import field_validator, model_validator

from djsandbox_ray.dataset.source import SOURCES, Source
from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.trials.base import Base, BaseTask
from djsandbox_ray.trials.clip.arch import training_flops
from djsandbox_ray.trials.config import WorkerResources
from djsandbox_ray.trials.llava.base_folder import (
    Architecture,
    join,
    load_base,
    read_config,
    written_out,
)
from djsandbox_ray.trials.llava.flops import count_parts
from djsandbox_ray.trials.llava.small import (
    VERSION,
    BaseTraining,
    SmallBase,
    small_configurations,
)
from djsandbox_ray.trials.model_folders import (
    copy_model,
    folder_content,
    is_there,
    local_folder,
    shipped_arch,
)

_TEXT_TOKENS = 32
"""Of a usual text of the trusted data: operations are counted for so many."""


FOLDERS = ("path", "vision_tower", "language_model")
"""The settings of a base that name a folder."""


class BaseArchitecture(Section):
    """What the parts of a base are, as their folders' ``config.json`` say it."""

    vision_tower: Architecture
    """As ``{model_type: clip_vision_model, hidden_size: 1024, ...}``."""
    language_model: Architecture
    """As ``{model_type: gemma, hidden_size: 2048, ...}``."""


class LlavaBaseConfig(Section):
    """Where the base comes from: ``path``, or ``vision_tower`` and ``language_model``, or ``build``
    with ``train``.
    """  # noqa: D205

    path: str | None = None
    """A folder or URL with a whole LLaVA of transformers and its processor."""
    vision_tower: str | None = None
    """A folder or URL with a vision tower (CLIP, SigLIP) and its image processor."""
    language_model: str | None = None
    """A folder or URL with a causal language model and its tokenizer."""
    vision_feature_layer: int | tuple[int, ...] = -2
    """Which hidden states of the tower are read; several are put side by side."""
    architecture: BaseArchitecture | None = None
    """What the folders hold: as long as they are not there, operations are counted by it, so that
    a run can be planned before anything is downloaded. It decides nothing else."""
    build: str | None = None
    """A small architecture of the package: ``tiny``."""
    train: BaseTraining | None = None
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
    def _one_way(self) -> LlavaBaseConfig:
        ways = {
            "path": self.path,
            "vision_tower": self.vision_tower or self.language_model,
            "build": self.build or self.train,
        }
        if sum(way is not None for way in ways.values()) != 1:
            raise ValueError(
                "one of these is needed: path; vision_tower and language_model; build and train"
            )
        for one, other in (("vision_tower", "language_model"), ("build", "train")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} go together")
        if self.build is not None and self.architecture is not None:
            raise ValueError(f"architecture is for folders; that of build: {self.build} is known")
        return self


class LlavaBase(Base):
    """Makes the base of a LLaVA.

    Args:
        config: where it comes from.
    """

    def __init__(self, config: LlavaBaseConfig) -> None:
        self.config = config
        resources = config.resources
        self.cpus, self.gpus = resources.cpus_per_worker, resources.gpus_per_worker
        self.nodes = resources

    def sources(self) -> dict[str, Source]:
        """Return the trusted pairs and conversations."""
        train = self.config.train
        if train is None:
            return {}
        given = {"pairs": train.dataset, "questions": train.questions}
        return {
            name: SOURCES.get(source.type)(source)
            for name, source in given.items()
            if source is not None
        }

    def identity(self) -> Any:
        """Return the content of the folders, or the architecture and how it is trained."""
        config = self.config
        if config.path is not None:
            return {"path": folder_content(config.path)}
        if config.train is None:
            parts = (config.vision_tower, config.language_model)
            contents = [folder_content(part) for part in parts if part is not None]
            return {"parts": contents, "vision_feature_layer": config.vision_feature_layer}
        train = config.train.model_dump(mode="json", exclude={"dataset", "questions"})
        return {
            "arch": shipped_arch(__package__, config.build or ""),
            "train": train,
            "version": VERSION,
        }

    def configurations(self) -> tuple[Any, Any]:
        """Return the settings of tower and language model, as transformers has them.

        Raises:
            BadInput: there are none where they are looked for.
        """
        transformers = require("transformers", "llava")
        config = self.config
        if config.build is not None:
            return small_configurations(shipped_arch(__package__, config.build))
        places = [place for name in FOLDERS if (place := getattr(config, name)) is not None]
        written = config.architecture
        if written is not None and not all(map(is_there, places)):
            return written_out(written.vision_tower), written_out(written.language_model)
        if config.path is not None:
            with local_folder(config.path) as folder:
                whole = read_config(folder)
            return whole.vision_config, whole.text_config
        with (
            local_folder(config.vision_tower or "") as tower,
            local_folder(config.language_model or "") as language,
        ):
            seen, read = (
                transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
                for folder in (tower, language)
            )
        return getattr(seen, "vision_config", seen), read

    def seen(self) -> tuple[int, int]:
        """Return how many tokens stand for an image, and how wide what the tower sees is.

        Raises:
            BadInput: a folder is not there.
        """
        config = self.config
        tower, _ = self.configurations()
        layers: Any = config.vision_feature_layer
        if config.build is not None:
            layers = shipped_arch(__package__, config.build)["vision_feature_layer"]
        elif config.path is not None and is_there(config.path):
            with local_folder(config.path) as folder:
                layers = read_config(folder).vision_feature_layer
        count = 1 if isinstance(layers, int) else len(layers)
        return (tower.image_size // tower.patch_size) ** 2, count * int(tower.hidden_size)

    def samples(self) -> int:
        """Return the samples that tower and language model see."""
        return 2 * self.config.train.samples if self.config.train else 0

    def flops(self) -> float:
        """Count the trainings of tower and language model."""
        from djsandbox_ray.trials.llava.modules import projector_of

        train = self.config.train
        if train is None:
            return 0.0
        arch = shipped_arch(__package__, self.config.build or "")
        tower, language = small_configurations(arch)
        made = partial(projector_of, "linear", tower.hidden_size, language.hidden_size)
        tokens = (tower.image_size // tower.patch_size) ** 2 + _TEXT_TOKENS
        read = count_parts(tower, language, made, tokens).language_trained
        return train.samples * (training_flops(arch["tower"]) + read)

    def make(self, task: BaseTask) -> dict[str, float]:
        """Copy, join or train it."""
        config = self.config
        if config.path is not None:
            with local_folder(config.path) as folder:
                copy_model(folder, task.folder)
            load_base(task.folder)
            return {}
        if config.train is not None:
            return SmallBase(
                config.train, shipped_arch(__package__, config.build or ""), task
            ).make()
        with (
            local_folder(config.vision_tower or "") as tower,
            local_folder(config.language_model or "") as language,
        ):
            layers = config.vision_feature_layer
            join(tower, language, task.folder, layers if isinstance(layers, int) else [*layers])
        return {}
