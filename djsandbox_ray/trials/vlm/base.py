"""The model that trials start from: copied from a folder, and loaded by transformers' auto classes.

Neither remote code nor weights other than safetensors are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.base import Base, BaseTask
from djsandbox_ray.trials.model_folders import (
    copy_model,
    first_line,
    folder_content,
    local_folder,
    without_dropout,
)
from djsandbox_ray.trials.vlm.config import VlmBaseConfig

_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)
"""What the auto classes raise of folders that they cannot read."""


@dataclass(frozen=True)
class LoadedVlm:
    """A base in memory."""

    model: Any
    """A model of transformers with a head on the CPU, as it was saved, in evaluation mode."""
    processor: Any


class VlmBase(Base):
    """Copies the model.

    Args:
        config: where it comes from.
    """

    def __init__(self, config: VlmBaseConfig) -> None:
        self.config = config
        resources = config.resources
        self.cpus, self.gpus = resources.cpus_per_worker, resources.gpus_per_worker
        self.nodes = resources

    def identity(self) -> Any:
        """Return the content of the folder."""
        return {"path": folder_content(self.config.path)}

    def make(self, task: BaseTask) -> dict[str, float]:
        """Copy it, and look whether it can be loaded."""
        with local_folder(self.config.path) as folder:
            copy_model(folder, task.folder)
        load_vlm(task.folder)
        return {}


def load_vlm(folder: Path) -> LoadedVlm:
    """Load a model and its processor.

    Raises:
        BadInput: the folder has no such model.
    """
    transformers = require("transformers", "llava")
    processor = read_processor(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **_LOCAL)
        without_dropout(config)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, config=config, use_safetensors=True, dtype="auto", **_LOCAL
        )
    except _FAULTS as error:
        raise BadInput(
            f"{folder}: no image-to-text model can be loaded from it: {first_line(error)}"
        ) from error
    model.generation_config = transformers.GenerationConfig()
    return LoadedVlm(model.eval(), processor)


def read_processor(folder: Path) -> Any:
    """Load a processor.

    Raises:
        BadInput: the folder has none that reads images and conversations.
    """
    transformers = require("transformers", "llava")
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **_LOCAL)
    except _FAULTS as error:
        raise BadInput(
            f"{folder}: no processor can be loaded from it: {first_line(error)}"
        ) from error
    lacking = [
        what
        for name, what in (
            ("tokenizer", "tokenizer"),
            ("image_processor", "image processor"),
            ("chat_template", "chat template"),
        )
        if not getattr(processor, name, None)
    ]
    if lacking:
        raise BadInput(
            f"{folder}: {type(processor).__name__} has no {' and no '.join(lacking)}; an "
            "image-to-text model needs one"
        )
    return processor
