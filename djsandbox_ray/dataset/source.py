"""What every source of samples has in common: shards that are read one by one, anywhere.

A shard is a fixed part of the data (some row groups, one tar, some lines), whatever the cluster
looks like; the order of shards, and of what each yields, is the order of the sample table.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from pydantic import Field, field_validator, model_validator

from djsandbox_ray.dataset.debris import PassedOver
from djsandbox_ray.dataset.media import MODALITIES, Content, Kind, Media, Turn, VideosConfig
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.settings.code import with_code
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component, Section


@dataclass(frozen=True)
class Sample:
    """A text with its media as the source holds it; :mod:`.prepare` says whether it can be used.

    A pair is ``Sample(image, text, source, meta)``; other samples have media, turns, or neither.
    """

    image: bytes
    """An encoded image file (JPEG, PNG, ...), the first of the media; empty where there is none."""
    text: str
    """The caption; what is said with a conversation, as :func:`.media.assistant_text` gives it.
    Tokens in it stand for the media, in order."""
    source: str
    """``file#position``, relative to what the source was given."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Plain JSON data: labels and whatever else the source says about the sample."""
    media: tuple[Media, ...] = ()
    """Images and videos in order, after ``image``."""
    turns: tuple[Turn, ...] = ()

    @property
    def all_media(self) -> tuple[Media, ...]:
        """Images and videos, in order."""
        return (Media("image", self.image), *self.media) if self.image else self.media

    @property
    def is_pair(self) -> bool:
        """Whether it is one image and its caption."""
        return not self.turns and tuple(one.kind for one in self.all_media) == ("image",)


@dataclass(frozen=True)
class Rejection:
    """A sample that is set aside, and why.

    The reasons that this package gives are
    ``missing_image``, ``bad_image`` (not decodable, truncated, too large), ``bad_text`` (no text,
    or not Unicode), ``empty_caption``, ``bad_meta`` (not JSON), ``bad_json``, ``bad_row`` (of a CSV
    file, or a row that is for another file), ``not_downloaded`` (by img2dataset), ``image_count``
    (not exactly one), ``missing_video``, ``bad_video`` (no container of a video, or a frame that
    does not decode), ``too_short`` (less than two frames), ``too_large``, ``media_count`` (not what
    the source's ``content`` says), ``bad_tokens`` (of other media than there are), ``bad_turns``,
    ``escaping_path``, ``missing_member`` and ``duplicate_member`` (tar),
    ``bad_label`` (a number that the data itself does not name, where it names the classes),
    ``broken_shard`` (a file, or the rest of one, cannot be read), and ``unreadable`` (anything
    else that a reader stumbles over).
    """

    source: str
    reason: str
    detail: str
    lost: int = 1
    """How many samples it stands for; an estimate where the rest of a file cannot be read."""


@dataclass(frozen=True)
class Remark:
    """Something that costs no sample, and is to be known all the same."""

    source: str
    """Where it was found first."""
    what: str
    """In the plural: it is counted over all shards."""
    detail: str
    count: int = 1


Item: TypeAlias = Sample | Rejection | Remark


_SAMPLE_BYTES = 16 << 10
"""What a sample is taken to have where nothing was read to know better: a small web picture."""


def estimated_loss(unread: int, read: int, samples: int) -> int:
    """Estimate how many samples lie in what cannot be read, rather too many; at least 1.

    Args:
        unread: bytes that cannot be read.
        read: bytes of the same kind that could be read.
        samples: how many these held.
    """
    return max(1, math.ceil(unread / (read / samples if read and samples else _SAMPLE_BYTES)))


@dataclass(frozen=True)
class Shard:
    """A fixed part of a source."""

    name: str
    """Unique in the source and the same wherever the data lies."""
    stamp: Any
    """Plain data that changes when the content may have changed."""
    read: Callable[[], Iterator[Item]]
    """Picklable; yields the same in the same order every time."""
    rows: int | None = None
    """How many samples it holds, rejected ones too, where that is known without reading."""
    split: Callable[[], list[Shard]] | None = None
    """Picklable; returns the smaller shards that it is made of, where only reading through it tells
    where they begin. It is called once in an ingest, in a task."""


class ShuffleCaptions(Section):
    """Give some samples each other's captions: noise with a known truth, ``meta["shuffled"]``."""

    fraction: float = Field(gt=0, le=1)
    """Share of the samples of every shard whose captions are permuted among themselves."""
    seed: int = Field(default=0, ge=0)
    """Decides which, and whose caption each gets."""


class Boilerplate(Section):
    """Replace some captions by sentences that fit any image; ``meta["boilerplate"]`` tells."""

    fraction: float = Field(gt=0, le=1)
    """Share of the samples, in every 100 of a shard."""
    seed: int = Field(default=0, ge=0)
    """Decides which, and which sentence each gets."""


class SourceConfig(Component):
    """What may be asked of every source."""

    LOCATION: ClassVar[frozenset[str]] = frozenset({"path"})
    """Fields that say where the data lies and not what it is: left out of the stamp."""
    FOR_KIND: ClassVar[dict[Kind, frozenset[str]]] = {}
    """Fields about media of a kind: where no such media are read they are an error."""

    rows: tuple[int, int] | None = None
    """``[start, stop]``: only these rows of the source, in its order; rejected ones count."""
    shuffle_captions: ShuffleCaptions | None = None
    """Noise with a known truth: some samples get each other's captions."""
    boilerplate: Boilerplate | None = None
    """Injected after captions were shuffled, into any of them."""
    content: Content = "pairs"
    """What every sample is: ``pairs`` (an image and its caption), ``videos`` (a video and its
    caption), ``texts``, ``conversations`` (turns, with any media), or ``any`` of these and
    interleaved documents. What is something else is rejected."""

    @field_validator("rows")
    @classmethod
    def _ordered(cls, rows: tuple[int, int] | None) -> tuple[int, int] | None:
        if rows is not None and not 0 <= rows[0] < rows[1]:
            raise ValueError("two numbers [start, stop] with 0 <= start < stop are needed")
        return rows

    @model_validator(mode="after")
    def _of_use(self) -> SourceConfig:
        for kind, fields in self.FOR_KIND.items():
            # The configuration that a run writes down names every field, those of no use too.
            defaults = type(self).model_fields
            asked = sorted(at for at in fields if getattr(self, at) != defaults[at].default)
            if asked and kind not in MODALITIES[self.content]:
                raise ValueError(
                    f"{' and '.join(asked)}: no {kind}s are read for content: {self.content}"
                )
        return self

    @model_validator(mode="after")
    def _captions(self) -> SourceConfig:
        asked = self.shuffle_captions or self.boilerplate
        if asked is not None and self.content not in ("pairs", "videos"):
            raise ValueError(
                "shuffle_captions and boilerplate need captions (content: pairs or videos), not "
                f"content: {self.content}"
            )
        return self


class Source(ABC):
    """Where samples come from.

    Args:
        config: an instance of the class's own ``Config``.
    """

    Config: ClassVar[type[SourceConfig]] = SourceConfig
    VERSION: ClassVar[int | None] = None
    """Raised when the same files give other samples."""
    CONTENTS: ClassVar[tuple[Content, ...]] = tuple(MODALITIES)
    """What its samples may be asked to be; another ``content`` is an error of the configuration."""
    HAS_PLACES: ClassVar[bool] = False
    """Whether its videos are files of their own and have a :attr:`~.media.Media.place`, so that
    they may stay there."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def shards(self) -> list[Shard]:
        """Return the shards, in the order of the sample table, without reading through the data.

        Raises:
            BadInput: the data is not there or not of the promised form.
        """

    def passed_over(self) -> PassedOver:
        """Return what lies among the data and is not read, as the last call of :meth:`shards` saw.

        A user is told of it.
        """
        return {}

    def found(self) -> tuple[str, ...]:
        """Return what was found out without having been told, as :meth:`shards` saw it last.

        A user is told of it, a line each.
        """
        return ()

    def class_names(self, key: str) -> tuple[str, ...]:
        """Return what the data itself calls the numbers under a key of the meta data, from 0 on.

        As the last call of :meth:`shards` saw it; nothing where the data does not say.

        Raises:
            BadInput: parts of the data contradict each other.
        """
        return ()

    def stamp(self) -> dict[str, Any]:
        """Return plain data, cheap to get, that changes when ingest may have to run again."""
        version = {} if self.VERSION is None else {"version": self.VERSION}
        return {
            "config": self.config.model_dump(mode="json", exclude=set(self.config.LOCATION)),
            "shards": [[shard.name, shard.stamp] for shard in self.shards()],
            **version,
        }


def content_of(config: Component) -> Content:
    """Return what the samples of a configured source are; pairs where it cannot be said."""
    return config.content if isinstance(config, SourceConfig) else "pairs"


def stamp_of(source: Source) -> Any:
    """Return the stamp of a source, with the code of a user's class."""
    return with_code(source.stamp(), type(source))


SOURCES: Registry[Source] = Registry(
    "source",
    Source,  # type: ignore[type-abstract]
    {
        "clips": "djsandbox_ray.dataset.clips:ClipsSource",
        "coco": "djsandbox_ray.dataset.coco:CocoSource",
        "csv": "djsandbox_ray.dataset.delimited:DelimitedSource",
        "folder": "djsandbox_ray.dataset.folder:FolderSource",
        "huggingface": "djsandbox_ray.dataset.huggingface:HuggingFaceSource",
        "interleaved": "djsandbox_ray.dataset.interleaved:InterleavedSource",
        "jsonl": "djsandbox_ray.dataset.jsonl:JsonlSource",
        "llava": "djsandbox_ray.dataset.llava:LlavaSource",
        "parquet": "djsandbox_ray.dataset.parquet:ParquetSource",
        "shapes": "djsandbox_ray.dataset.shapes:ShapesSource",
        "shapes_questions": "djsandbox_ray.dataset.shapes_questions:ShapesQuestionsSource",
        "webdataset": "djsandbox_ray.dataset.webdataset:WebDatasetSource",
    },
)


class IngestConfig(Section):
    """What is tolerated when samples are read, and where that is done."""

    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of the samples that may be rejected; above it the run stops before training."""
    videos: VideosConfig = VideosConfig()
    """Which videos can be used, and where they are kept."""
    resources: NodeKind = NodeKind()
    """Which nodes read and decode samples."""
