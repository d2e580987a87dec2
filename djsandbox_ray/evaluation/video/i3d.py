"""Features of videos by I3D, as a program in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.video import run_i3d
from djsandbox_ray.evaluation.video.video_files import Frames
from djsandbox_ray.outside.config import ProgramConfig, Words
from djsandbox_ray.outside.environment import scratch
from djsandbox_ray.outside.program import Program

DIMENSIONS_OF_I3D = 400
"""Its logits: the classes of Kinetics."""
_DRIVER = Path(run_i3d.__file__)
_COMMAND = (
    "python",
    _DRIVER.name,
    "--videos={videos}",
    "--weights={weights}",
    "--features={features}",
)


class I3dConfig(ProgramConfig):
    """The environment of ``cd-fvd==0.1.1``, or an ``image`` that has it, and I3D's weights.

    Placeholders, for a ``command`` of one's own: ``{videos}``, a folder of files ``<number>.npy``
    with the frames of a video each, bytes of RGB; ``{weights}``; ``{features}``, the file to be
    written: a row of numbers for each, as ``numpy.save`` writes it.
    """

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = ("videos", "weights", "features")
    NEEDED: ClassVar[tuple[str, ...]] = ("videos", "features")

    type: Literal["i3d"] = "i3d"
    command: Words = Field(default=list(_COMMAND), min_length=1)
    """What is run; by default I3D's logits by ``cd-fvd``."""
    path: str
    """``i3d_pretrained_400.pt``, on all nodes."""


class I3dClips:
    """Has videos looked at by I3D.

    Args:
        config: of the program.
    """

    def __init__(self, config: I3dConfig) -> None:
        self._config = config

    @cached_property
    def program(self) -> Program:
        """The program with its files, which are where the configuration is: on the driver."""
        config = self._config
        own = (str(_DRIVER),) if tuple(config.command) == _COMMAND else ()
        return Program.read(config.model_copy(update={"files": (*config.files, *own)}))

    def identity(self) -> Any:
        """Return what decides the features, beside the weights."""
        return {name: one for name, one in self.program.identity().items() if name != "path"}

    def features(
        self, videos: Iterable[Frames], *, cpus: float, gpus: float
    ) -> NDArray[np.float64]:
        """Return the features of videos, (videos, dimensions).

        Raises:
            ProgramFailed: it ended with an error.
            SandboxError: it wrote something else.
        """
        with scratch() as folder:
            place, target = folder / "videos", folder / "features.npy"
            place.mkdir()
            count = 0
            for frames in videos:
                np.save(place / f"{count:06d}.npy", frames)
                count += 1
            weights = Path(self._config.path)
            values = {"videos": str(place), "features": str(target), "weights": str(weights)}
            self.program.call(values, folder, cpus=cpus, gpus=gpus, reads=[weights.parent])
            try:
                found = np.load(target, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise SandboxError(f"I3D ended well, but wrote no features: {error}") from error
        if found.ndim != 2 or len(found) != count:
            raise SandboxError(f"I3D wrote features {found.shape} of {count} videos")
        wide: NDArray[np.float64] = found.astype(np.float64)
        return wide
