"""VBench itself, as a program in an environment of its own: called once on a folder of videos.

What it leaves out it does not say, and what it writes may be NaN. So all that it needs is looked
for before it is called, and all that it has written is looked at afterwards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.video import run_vbench
from djsandbox_ray.evaluation.video.board import in_range
from djsandbox_ray.evaluation.video.prompts import VideoPrompt, videos_of
from djsandbox_ray.evaluation.video.stored_videos import Videos, laid_out
from djsandbox_ray.evaluation.video.video_files import file_name
from djsandbox_ray.outside.config import ProgramConfig, Words
from djsandbox_ray.outside.environment import scratch
from djsandbox_ray.outside.program import Program

_DRIVER = Path(run_vbench.__file__)
_COMMAND = (
    "python",
    _DRIVER.name,
    "--videos_path={videos}",
    "--full_json_dir={full_info}",
    "--output_path={results}",
    "--dimension={dimensions}",
)
_CACHE = "VBENCH_CACHE_DIR"
_RESULTS = "_eval_results.json"
_CLIP_B, _CLIP_L = "clip_model/ViT-B-32.pt", "clip_model/ViT-L-14.pt"
_GRIT = "grit_model/grit_b_densecap_objectdet.pth"
_VICLIP = ("ViCLIP/ViClip-InternVid-10M-FLT.pth", "ViCLIP/bpe_simple_vocab_16e6.txt.gz")
NEEDED: dict[str, tuple[str, ...]] = {
    "subject_consistency": (
        "dino_model/dino_vitbase16_pretrain.pth",
        "dino_model/facebookresearch_dino_main/hubconf.py",
    ),
    "background_consistency": (_CLIP_B,),
    "temporal_flickering": (),
    "motion_smoothness": ("amt_model/amt-s.pth",),
    "dynamic_degree": ("raft_model/models/raft-things.pth",),
    "aesthetic_quality": (_CLIP_L, "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"),
    "imaging_quality": ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",),
    "object_class": (_GRIT,),
    "multiple_objects": (_GRIT,),
    "human_action": ("umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",),
    "color": (_GRIT,),
    "spatial_relationship": (_GRIT,),
    "scene": ("caption_model/tag2text_swin_14m.pth",),
    "appearance_style": (_CLIP_B,),
    "temporal_style": _VICLIP,
    "overall_consistency": _VICLIP,
}
"""By dimension, the files in ``VBENCH_CACHE_DIR`` that VBench would else download."""
SKIPS = frozenset({"color"})
"""Dimensions that are a mean over the videos in which their object was seen: others have none."""
_PERCENT = frozenset({"imaging_quality"})
"""Dimensions whose single videos are given in percent."""


class OfficialVbenchConfig(ProgramConfig):
    """VBench's environment (or an ``image`` that has it), and the folder of its weights.

    Placeholders, for a ``command`` of one's own: ``{videos}``, the folder; ``{full_info}``, the
    JSON file with their prompts; ``{dimensions}``, with blanks between them; ``{results}``, an
    empty folder for ``<anything>_eval_results.json``; ``{cache}``.
    """

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = (
        "videos",
        "full_info",
        "dimensions",
        "results",
        "cache",
    )
    NEEDED: ClassVar[tuple[str, ...]] = ("videos", "full_info", "dimensions", "results")

    type: str = "vbench"
    command: Words = Field(default=list(_COMMAND), min_length=1)
    """What is run; by default VBench's own evaluation, in one process."""
    cache: str
    """``VBENCH_CACHE_DIR``: the weights, where VBench looks for them; the same on all nodes."""


@dataclass(frozen=True)
class DimensionResult:
    """What VBench has found in one dimension."""

    value: float
    """As it gives it: of some dimensions the mean over frames, of others over videos."""
    videos: Mapping[str, float]
    """By the name of the file; of dimensions that skip some, of the others."""


class OfficialVbench:
    """Calls VBench, and looks at what it has written.

    Args:
        config: of the program.
    """

    def __init__(self, config: OfficialVbenchConfig) -> None:
        self._config = config

    @cached_property
    def program(self) -> Program:
        """The program with its files, which are where the configuration is: on the driver."""
        config = self._config
        own = (str(_DRIVER),) if tuple(config.command) == _COMMAND else ()
        env = {_CACHE: "{cache}", **config.env}
        return Program.read(config.model_copy(update={"env": env, "files": (*config.files, *own)}))

    def identity(self) -> Any:
        """Return what decides its numbers: the program and its environment.

        Which weights these are, VBench's version and the files' names say.
        """
        return {name: one for name, one in self.program.identity().items() if name != "cache"}

    def check(self, dimensions: Iterable[str]) -> None:
        """Look for the files that VBench would else download, and for its packages.

        Raises:
            BadInput: something is not there.
        """
        self._check_weights(dimensions)
        self.program.check()

    def measure(
        self, videos: Videos, prompts: Sequence[VideoPrompt], dimensions: Sequence[str], each: int
    ) -> dict[str, DimensionResult]:
        """Have videos judged, all dimensions in one call.

        Args:
            videos: where they are from.
            prompts: with the dimensions that each is for.
            dimensions: that are measured.
            each: videos of a prompt.

        Raises:
            ProgramFailed: it ended with an error.
            SandboxError: a dimension is missing, or a video, or a value is no number.
            BadInput: weights are not there, or a value is none that can be.
        """
        self._check_weights(dimensions)
        config = self._config
        with scratch() as folder:
            places = {name: folder / name for name in ("videos", "results")}
            for place in places.values():
                place.mkdir()
            full_info = folder / "full_info.json"
            full_info.write_text(json.dumps([one.entry() for one in prompts], ensure_ascii=False))
            laid_out(videos, videos_of(prompts, each), places["videos"])
            values = {
                **{name: str(place) for name, place in places.items()},
                "full_info": str(full_info),
                "dimensions": " ".join(dimensions),
                "cache": config.cache,
            }
            self.program.call(
                values,
                folder,
                cpus=videos.cpus,
                gpus=videos.gpus,
                reads=[Path(config.cache)],
            )
            expected = {
                dimension: [
                    file_name(one.prompt, one.number) for one in videos_of(prompts, each, dimension)
                ]
                for dimension in dimensions
            }
            return read_results(places["results"], expected)

    def _check_weights(self, dimensions: Iterable[str]) -> None:
        cache = Path(self._config.cache)
        wanted = dict.fromkeys(file for one in dimensions for file in NEEDED[one])
        if lacking := [file for file in wanted if not (cache / file).is_file()]:
            raise BadInput(
                f"official.cache: {len(lacking)} of {len(wanted)} files that VBench needs are not "
                f"there, and nothing is downloaded: {', '.join(str(cache / f) for f in lacking)}"
            )


def read_results(folder: Path, expected: Mapping[str, Sequence[str]]) -> dict[str, DimensionResult]:
    """Read what VBench has written.

    Args:
        folder: where it was told to write.
        expected: by dimension, the names of the videos that it was to look at.

    Raises:
        SandboxError: a file is missing, a dimension or a video is, or a value is no number.
        BadInput: a value is none that can be.
    """
    files = sorted(folder.rglob(f"*{_RESULTS}"))
    if len(files) != 1:
        what = "no file" if not files else f"{len(files)} files"
        raise SandboxError(
            f"VBench ended well, but wrote {what} *{_RESULTS}: it ends well when it fails, too; "
            "its last lines say why"
        )
    try:
        document = json.loads(files[0].read_text(encoding="utf-8"))  # NaN may occur in it
    except ValueError as error:
        raise SandboxError(f"VBench: {files[0].name} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise SandboxError(f"VBench: {files[0].name} is no object")
    if lacking := [name for name in expected if name not in document]:
        raise SandboxError(f"VBench gave no {', '.join(lacking)}")
    return {name: _result(name, document[name], names) for name, names in expected.items()}


def _result(dimension: str, found: Any, names: Sequence[str]) -> DimensionResult:
    """Return the result of a dimension, ``[value, [{video_path, video_results}, ...]]``."""
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[1], list):
        raise SandboxError(f"VBench: {dimension} is {found!r:.60}, not a value and its videos")
    where, whole, listed = "VBench", _number(dimension, "", found[0]), found[1]
    scale = 100.0 if dimension in _PERCENT else 1.0
    videos = {}
    for one in listed:
        if not isinstance(one, dict) or "video_results" not in one or "video_path" not in one:
            raise SandboxError(f"VBench: {dimension}: {one!r:.60} is no result of a video")
        name = Path(str(one["video_path"])).name
        value = _number(dimension, name, one["video_results"])
        videos[name] = in_range(dimension, value / scale, f"{where}, {name}")
    lacking = [name for name in dict.fromkeys(names) if name not in videos]
    if foreign := [name for name in videos if name not in names]:
        raise SandboxError(f"VBench: {dimension}: nobody asked for {foreign[0]!r}")
    skips = dimension in SKIPS and len(listed) + len(lacking) == len(names)
    if (lacking or len(listed) != len(names)) and not (skips and videos):
        first = f"; the first that is missing is {lacking[0]!r}" if lacking else ""
        raise SandboxError(
            f"VBench: {dimension} has {len(listed)} results of {len(names)} videos{first}"
        )
    return DimensionResult(in_range(dimension, whole, where), videos)


def _number(dimension: str, name: str, value: Any) -> float:
    """Return a number; true and false, which some dimensions give a video, are 1 and 0."""
    of = f"{dimension} of {name!r}" if name else dimension
    if not isinstance(value, int | float):
        raise SandboxError(f"VBench: {of} is {value!r:.60}, not a number")
    if not math.isfinite(value):
        raise SandboxError(
            f"VBench: {of} is {value}: so it is with weights that belong to no such model"
        )
    return float(value)
