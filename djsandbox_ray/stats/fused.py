"""Several operators in one pass over a batch of samples, without Ray and without files.

Data-Juicer's contract: a batch is a dict of lists with a list of dicts under ``Fields.stats``;
``compute_stats_batched`` writes into those. Every operator gets fresh dicts, because a key that is
there already is not computed again, so two operators that write one key would give one result.
Decoded images and words are shared through ``Fields.context`` among operators that take it. Where
operators read videos, one sample after the other is brought into files and goes through all of
them, so that nothing but one sample is open.

What a model calculates is counted on a few samples, by torch's own counter.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.faults import is_no_fault
from djsandbox_ray.dataset.images import shortened_file
from djsandbox_ray.dataset.media import Kind, plain_text, tagged_text
from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed, require
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.embeddings import IMAGE_NAME, MODEL_SIDE, BatchedSimilarity
from djsandbox_ray.stats.operators import OperatorSpec
from djsandbox_ray.stats.temporary_videos import (
    Opened,
    TemporaryVideos,
    bound_motion,
    forget,
    named,
    opened,
    plain_video,
    way_of_opening,
)

Images = Sequence[bytes] | Sequence[Sequence[bytes]]
"""Encoded images, shape (rows,), or in order those of each sample, which may have none."""
Videos = Sequence[Sequence[bytes]]
"""Encoded videos, in order those of each sample."""
Fields = Mapping[str, Sequence[str]]
"""Further texts of the samples by the fields that they stand in, each of shape (rows,)."""

_Compute = Callable[[dict[str, list[Any]]], None]
_Ask = Callable[[Any, Sequence[str]], _Compute]
_PLAIN = "a photo of a small dog"
_TEXT, _TAGGED, _IMAGES, _BYTES = "text", "text_with_tokens", "images", "image_bytes"
_VIDEOS = "videos"
_DEVICE_FAILS = (
    *("out of memory", "can't allocate memory", "unable to find an engine"),
    *("CUDA error", "CUDA driver error", "cuDNN error", "HIP error"),
)
"""How torch words the failures of a device, and of memory that ran out; all are RuntimeErrors."""


@dataclass(frozen=True)
class Failure:
    """A row that an operator could not compute."""

    row: int
    """Position in the batch."""
    reason: str


@dataclass
class Computed:
    """What one operator gave for a batch."""

    columns: dict[str, NDArray[np.float64]]
    """Per statistic, shape (rows,); NaN where there is no value."""
    kept: NDArray[np.bool_]
    """(rows,): which rows the operator itself keeps by its thresholds, where it is asked; else, and
    where it failed, none."""
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


class FusedOperators:
    """Operators that are built once and run together.

    Args:
        specs: the operators.
        gpu: whether those that can may use a GPU.
        pairs: whether the samples are pairs: a token in a caption is text like any other, and text
            operators see it, as Data-Juicer does.
        asking: by index, what makes the computation of an operator whose model is behind an API of
            Data-Juicer's operator and the statistics that it writes.
        decide: whether operators are asked which rows they keep.

    Raises:
        BadInput: an operator cannot be built or cannot compute a plain sample: says which and why.
    """

    def __init__(
        self,
        specs: Sequence[OperatorSpec],
        *,
        gpu: bool = False,
        pairs: bool = False,
        asking: Mapping[int, _Ask] | None = None,
        decide: bool = False,
    ) -> None:
        self._pairs = pairs
        asks = [(asking or {}).get(index) for index in range(len(specs))]
        self._runners = [
            _Runner(spec, gpu, ask, decide) for spec, ask in zip(specs, asks, strict=True)
        ]
        for runner, ask in zip(self._runners, asks, strict=True):
            if ask is None:  # each answer of an API is paid for
                runner.try_out()

    def reads_images(self, operators: Sequence[int]) -> bool:
        """Say whether any of these operators (by index) reads images."""
        return any(self._runners[index].reads_images for index in operators)

    def reads_videos(self, operators: Sequence[int]) -> bool:
        """Say whether any of these operators (by index) reads videos."""
        return any(self._runners[index].reads_videos for index in operators)

    def reads_fields(self, operators: Sequence[int]) -> list[str]:
        """Return the fields of further texts that these operators (by index) read, each once."""
        read = (self._runners[index].spec.second for index in operators)
        return list(dict.fromkeys(field for field in read if field is not None))

    def __call__(
        self,
        texts: Sequence[str],
        images: Images | None,
        operators: Sequence[int],
        videos: Videos | None = None,
        fields: Fields | None = None,
    ) -> list[Computed]:
        """Compute the statistics of a batch.

        Args:
            texts: of the samples, shape (rows,); where they hold tokens of media, in their order.
            images: None if none of the operators reads them.
            operators: indices of the operators to run.
            videos: None if none of the operators reads them.
            fields: those of :meth:`reads_fields`; an empty text where a sample has none, which
                gives it no value.

        Returns:
            One entry per index, in order.

        Raises:
            SandboxError: the machine fails. A row would lose its value for good by that, and many
                rows: once a GPU has failed, no process that used it can go on.
        """
        rows = _rows(texts, images, videos, pairs=self._pairs)
        rows |= {field: [*(fields or {})[field]] for field in self.reads_fields(operators)}
        runners = {index: self._runners[index] for index in operators}
        with _inference():
            done = {
                index: runner(rows) for index, runner in runners.items() if not runner.reads_videos
            }
            moving = {index: runner for index, runner in runners.items() if runner.reads_videos}
            if moving:
                done |= _one_by_one(moving, rows, videos or [[]] * len(texts))
        return [done[index] for index in operators]

    def flops_per_sample(
        self,
        texts: Sequence[str],
        images: Images | None,
        operator: int,
        videos: Videos | None = None,
        fields: Fields | None = None,
    ) -> float | None:
        """Count the floating-point operations of an operator (by index) on a batch that it can do.

        The batch is computed for the count alone; statistics never come from it. Other arguments
        are as for a call.

        Returns:
            The mean per sample; 0 without a model, None where the model cannot be counted.
        """
        runner = self._runners[operator]
        rows = _rows(texts, images, videos, pairs=self._pairs)
        rows |= {field: [*(fields or {})[field]] for field in self.reads_fields([operator])}

        def compute() -> None:
            if runner.reads_videos:
                _one_by_one({operator: runner}, rows, videos or [[]] * len(texts))
            else:
                runner(rows)

        with _inference():
            flops = count_flops(runner.spec, compute)
        return None if flops is None else flops / len(texts)


class _Runner:
    """One operator with what it needs to be called."""

    def __init__(self, spec: OperatorSpec, gpu: bool, ask: _Ask | None, decide: bool) -> None:
        cls = spec.filter_class
        self.spec = spec
        self._decide = decide
        self.name = spec.name
        self.keys = spec.keys
        self.reads_images = "image" in inspection.reads(cls)
        self.reads_videos = "video" in inspection.reads(cls)
        self.opens = way_of_opening(cls, spec.values)
        self._scales = self.reads_images and bool(spec.model_kinds)
        self._context = inspection.takes_context(cls)
        runner: dict[str, Any] = {
            "text_key": _TAGGED if inspection.needs_tokens(cls) else _TEXT,
            "image_key": _IMAGES,
            "image_bytes_key": _BYTES,
            "video_key": _VIDEOS,
            "auto_op_parallelism": False,
        }
        if not gpu:
            runner["accelerator"] = "cpu"
        try:
            self._operator: Any = cls(**runner, **spec.params)
        except Exception as error:
            raise BadInput(f"{spec.name} cannot be built: {_reason(error)}") from error
        self._compute: _Compute = self._call
        self._alone: _Compute = self._call
        if spec.name == "image_text_similarity_filter":
            self._compute = BatchedSimilarity(self._operator, self.keys[0])
        if hasattr(cls, "compute_flow"):  # Data-Juicer's three operators of motion
            bound_motion(self._operator)
        if spec.asks:
            if ask is None:
                raise BadInput(f"{spec.name} needs statistics.endpoint")
            self._compute = self._alone = ask(self._operator, self.keys)

    def try_out(self) -> None:
        """Compute a plain sample, so that a missing model or package is found before any data."""
        try:
            with _inference(), TemporaryVideos() as folder, opened() as contexts:
                videos = [plain_video()] if self.reads_videos else []
                images = [_plain_image(shade) for shade in range(self.spec.images or 1)]
                batch = _rows([_PLAIN], [images], [videos])
                if self.spec.second is not None:
                    batch[self.spec.second] = [_PLAIN]
                batch[load().stats_field] = [{}]
                with folder.written(videos) as paths:
                    self._call(self.with_videos(batch, paths, contexts))
            for key in self.keys:
                to_number(batch[load().stats_field][0].get(key))
        except StorageFailed:
            raise
        except Exception as error:
            raise BadInput(f"{self.name} cannot compute a sample: {_reason(error)}") from error
        if not any(key in batch[load().stats_field][0] for key in self.keys):
            raise BadInput(f"{self.name} wrote none of its statistics ({', '.join(self.keys)})")

    def __call__(self, rows: dict[str, list[Any]]) -> Computed:
        start = time.perf_counter()
        size = len(rows[_TEXT])
        done = self.nothing(size)
        rows = self._bounded(rows)
        try:
            self._fill(done, rows, slice(0, size), self._compute)
        except Exception as error:
            _reraise_fatal(error)
            for row in range(size):  # only the rows that fail lose their values
                self.fill_row(done, _cut(rows, row), row)
        done.seconds = time.perf_counter() - start
        return done

    def nothing(self, size: int) -> Computed:
        """Return what is known of a batch before it is computed."""
        columns = {key: np.full(size, np.nan) for key in self.keys}
        return Computed(columns, np.zeros(size, dtype=np.bool_))

    def with_videos(
        self, row: dict[str, list[Any]], paths: list[str], contexts: Opened
    ) -> dict[str, list[Any]]:
        """Give one row its videos, and what is open of them for operators like this."""
        if not self.reads_videos:
            return row
        return {**row, _VIDEOS: [paths], load().context_field: [contexts[self.opens]]}

    def _bounded(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Keep very long pictures from a model, which would scale them whole and fill the memory.

        Other operators see them as they are.
        """
        if not self._scales or _BYTES not in rows:
            return rows
        images = [[shortened_file(image, MODEL_SIDE) for image in row] for row in rows[_BYTES]]
        contexts = [  # what the operators share is the picture as it was
            context if all(map(is_, new, old)) else {}
            for context, new, old in zip(
                rows[load().context_field], images, rows[_BYTES], strict=True
            )
        ]
        return {**rows, _BYTES: images, load().context_field: contexts}

    def fill_row(self, done: Computed, batch: dict[str, list[Any]], row: int) -> None:
        """Compute a batch of one row; if that fails, the row has no value and the failure is noted.

        Raises:
            SandboxError: it fails for what is no fault of the row.
        """
        try:
            self._fill(done, batch, slice(row, row + 1), self._alone)
        except Exception as error:
            _reraise_fatal(error)
            if is_no_fault(error) or _is_of_device(error):
                raise SandboxError(
                    f"{self.name} cannot go on, and not for what a sample holds: {_reason(error)}; "
                    "what is finished is kept, and the same command goes on from there"
                ) from error
            done.failures.append(Failure(row, _reason(error)))

    def _fill(
        self,
        done: Computed,
        batch: dict[str, list[Any]],
        part: slice,
        compute: _Compute,
    ) -> None:
        stats: list[dict[str, Any]] = [{} for _ in batch[_TEXT]]
        compute({**batch, load().stats_field: stats})
        values = [[to_number(stat.get(key)) for stat in stats] for key in self.keys]
        if self._decide:
            decided = {**batch, load().stats_field: stats}
            done.kept[part] = [bool(kept) for kept in self._operator.process_batched(decided)]
        for key, column in zip(self.keys, values, strict=True):
            done.columns[key][part] = column

    def _call(self, batch: dict[str, list[Any]]) -> None:
        """Have Data-Juicer's operator compute a batch.

        Raises:
            ValueError: a sample has not as many images as the operator compares.
        """
        if (needed := self.spec.images) is not None:
            for images in batch[_BYTES]:
                if len(images) != needed:
                    raise ValueError(f"it compares {needed} images; this sample has {len(images)}")
        if self._context:
            self._operator.compute_stats_batched(batch, context=True)
        else:
            self._operator.compute_stats_batched(batch)


def to_number(value: Any) -> float:
    """Reduce what an operator wrote to one number; NaN for None, an empty list, NaN or infinity.

    A list (one value per image, or per chunk of text) is reduced by its mean.

    Raises:
        TypeError: the value is not a number or a list of numbers.
    """
    if type(value) in (float, int):  # by far the most common
        return float(value) if math.isfinite(value) else math.nan
    if value is None:
        return math.nan
    array = np.asarray(value)
    if array.size == 0:
        return math.nan
    if array.dtype.kind not in "biuf":
        raise TypeError(f"not a number: {value!r:.80}")
    number = float(array.mean(dtype=np.float64))
    return number if math.isfinite(number) else math.nan


def _one_by_one(
    runners: Mapping[int, _Runner], rows: dict[str, list[Any]], videos: Videos
) -> dict[int, Computed]:
    """Compute operators that read videos, one sample after the other."""
    done = {index: runner.nothing(len(videos)) for index, runner in runners.items()}
    with TemporaryVideos() as folder:
        for row, sample in enumerate(videos):
            batch = _cut(rows, row)
            with folder.written(sample) as paths, opened() as contexts:
                for index, runner in runners.items():
                    start = time.perf_counter()
                    failures = done[index].failures
                    failed = len(failures)
                    runner.fill_row(done[index], runner.with_videos(batch, paths, contexts), row)
                    if len(failures) > failed:
                        failures[-1] = Failure(row, named(failures[-1].reason, paths))
                        forget(contexts[runner.opens])
                    done[index].seconds += time.perf_counter() - start
    return done


def _rows(
    texts: Sequence[str],
    images: Images | None,
    videos: Videos | None = None,
    *,
    pairs: bool = False,
) -> dict[str, list[Any]]:
    """Lay samples out as Data-Juicer expects them; text operators must not see tokens of media."""
    dj = load()
    rows: dict[str, list[Any]] = {
        _TEXT: [*texts] if pairs else [text and plain_text(text) for text in texts],
        dj.context_field: [{} for _ in texts],
    }
    media: dict[Kind, Sequence[Sequence[bytes]]] = {}
    if images is not None:
        media["image"] = rows[_BYTES] = [_as_list(sample) for sample in images]
        rows[_IMAGES] = [[*map(_image_name, range(len(some)))] for some in rows[_BYTES]]
    if videos is not None:
        media["video"] = videos
    if media:
        rows[_TAGGED] = [
            None  # no caption: the operator fails on this row, and on no other
            if text is None
            else tagged_text(
                plain_text(text) if pairs else text,
                [kind for kind in media for _ in media[kind][row]],
            )
            for row, text in enumerate(texts)
        ]
    return rows


def _as_list(images: bytes | Sequence[bytes]) -> list[bytes]:
    return [images] if isinstance(images, bytes) else [*images]


def _image_name(place: int) -> str:
    """Return what an image is known by among those of its sample."""
    return f"{IMAGE_NAME} {place}" if place else IMAGE_NAME


def _cut(rows: dict[str, list[Any]], row: int) -> dict[str, list[Any]]:
    return {key: values[row : row + 1] for key, values in rows.items()}


def _plain_image(shade: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 120, 40 + shade)).save(buffer, "PNG")
    return buffer.getvalue()


def _inference() -> AbstractContextManager[Any]:
    """Turn gradients off, if any operator has brought torch."""
    torch = sys.modules.get("torch")
    return torch.inference_mode() if torch is not None else nullcontext()


def _reraise_fatal(error: Exception) -> None:
    """A missing package is no fault of a row, nor is what was put in words already."""
    if isinstance(error, (ImportError, SandboxError)):
        raise error


def _is_of_device(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _DEVICE_FAILS)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


# Kinds of Data-Juicer's models that run in torch, and those whose work torch does not see. The
# others (tokenizers, n-gram tables) look up and do not calculate.
_SEEN = frozenset({"easyocr", "huggingface", "simple_aesthetics"})
_UNSEEN = frozenset({"api", "fasttext", "opencv_classifier", "spacy"})


def count_flops(spec: OperatorSpec, compute: Callable[[], None]) -> float | None:
    """Return the floating-point operations of ``compute``, which runs the operator's model.

    Returns:
        0 for an operator without a model, which is not called; None for one whose model torch
        cannot count.
    """
    kinds = set(spec.model_kinds)
    if kinds & _UNSEEN:
        return None
    if not kinds & _SEEN or "torch" not in sys.modules:  # a tokenizer may do without torch
        return 0.0
    counter = require("torch.utils.flop_counter", "clip").FlopCounterMode(display=False)
    try:
        with _plain_attention(), counter:
            compute()
    except Exception:  # a model that torch cannot take apart still has its statistics
        return None
    return float(counter.get_total_flops())


def only_looks_at_text(spec: OperatorSpec) -> bool:
    """Say whether an operator reads text alone and has no model: a row takes microseconds."""
    return not spec.model_kinds and inspection.reads(spec.filter_class) == {"text"}


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Have attention done in plain matrix products: the counter does not see fused kernels."""
    attention = require("torch.nn.attention", "clip")
    fast = require("torch.backends.mha", "clip")
    before = fast.get_fastpath_enabled()
    fast.set_fastpath_enabled(False)
    try:
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            yield
    finally:
        fast.set_fastpath_enabled(before)
