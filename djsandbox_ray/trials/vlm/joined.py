"""Samples side by side: tokens padded to one length, images in a row.

What stands for images has another shape with every processor: a row for each patch, for each tile,
or for each sample with as many places for tiles as the largest of the batch. Each sample is
processed alone; here they are put together, as the processor itself does it with several at a time:
:func:`check_joining` looks whether the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from djsandbox_ray.dataset.media import Turn
from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.conversations import NOT_LEARNT
from djsandbox_ray.trials.vlm.text import Processed, Script

_SAME = 1e-5
"""Largest difference of two pixels that are the same."""


@dataclass(frozen=True)
class Joined:
    """Samples that a model reads at a time; torch tensors on one device."""

    ids: Any
    """int64, shape (samples, length)."""
    mask: Any
    """int64, shape (samples, length): 1 where there is a token."""
    places: Any
    """int64, shape (targets,): behind which places of the flattened ids a target stands."""
    targets: Any
    """int64, shape (targets,)."""
    marks: Mapping[str, Any]
    """See :class:`~.text.Processed`; shape (samples, length, ...)."""
    media: Mapping[str, Any]
    """See :class:`~.text.Processed`; empty without images."""
    numbers: tuple[int, ...]
    """Of the samples in their batch."""

    def to(self, device: str) -> Joined:
        """Return the same on a device."""

        def moved(values: Any) -> Any:
            return values.to(device, non_blocking=True)

        marks, media = (
            {name: moved(values) for name, values in some.items()}
            for some in (self.marks, self.media)
        )
        ids, mask, places, targets = map(moved, (self.ids, self.mask, self.places, self.targets))
        return Joined(ids, mask, places, targets, marks, media, self.numbers)

    @property
    def inputs(self) -> dict[str, Any]:
        """What a model of transformers is given, by name."""
        return {"input_ids": self.ids, "attention_mask": self.mask, **self.marks, **self.media}


def join(
    samples: Sequence[Processed],
    numbers: Sequence[int],
    pad_id: int,
    side: Literal["left", "right"] = "right",
) -> Joined:
    """Put samples together.

    Args:
        samples: of a batch.
        numbers: which of them, in this order.
        pad_id: a token that fills up what is shorter than others; it is not read.
        side: where.

    Raises:
        BadInput: the processor has numbers for every token, but not of every sample.
    """
    torch = require("torch", "clip")
    some = [samples[number] for number in numbers]
    longest = max(len(one.ids) for one in some)
    ids = np.full((len(some), longest), pad_id, np.int64)
    labels = np.full((len(some), longest), NOT_LEARNT, np.int64)
    mask = np.zeros((len(some), longest), np.int64)
    spans = []
    for line, one in enumerate(some):
        start = 0 if side == "right" else longest - len(one.ids)
        spans.append(slice(start, start + len(one.ids)))
        ids[line, spans[-1]], labels[line, spans[-1]], mask[line, spans[-1]] = (
            one.ids,
            one.labels,
            1,
        )
    learnt = np.flatnonzero(labels.reshape(-1) != NOT_LEARNT)
    marks = {}
    for name in sorted({name for one in some for name in one.marks}):
        if not all(name in one.marks for one in some):
            raise BadInput(
                f"the processor gives {name} of samples with images alone: a batch cannot have "
                "samples of both kinds"
            )
        marks[name] = _in_lines([one.marks[name] for one in some], spans, longest)
    names = sorted({name for one in some for name in one.media})
    return Joined(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(learnt - 1),  # the first of a line is never learnt
        torch.from_numpy(labels.reshape(-1)[learnt]),
        marks,
        {name: _in_a_row([one.media[name] for one in some if name in one.media]) for name in names},
        tuple(numbers),
    )


def check_joining(
    script: Script, samples: Sequence[tuple[Sequence[Turn], Sequence[bytes]]], pad_id: int
) -> None:
    """Look whether samples are put together as the processor does it.

    Args:
        script: of the processor, of so many tokens that nothing is cut.
        samples: with images.
        pad_id: see :func:`join`.

    Raises:
        BadInput: they are not; says what differs.
    """
    torch = require("torch", "clip")
    processed = [script.sample(turns, files) for turns, files in samples]
    own, theirs = join(processed, range(len(samples)), pad_id).inputs, script.together(samples)
    seen = theirs["attention_mask"].bool()
    for name in sorted({*own, *theirs}):
        one, other = own.get(name), theirs.get(name)
        if one is not None and other is not None and one.shape == other.shape:
            if name == "input_ids":  # what fills up is not read
                one, other = one * seen, other * seen
            if torch.allclose(one.double(), other.double(), rtol=0, atol=_SAME):
                continue
        raise BadInput(
            f"the processor makes another {name} of {len(samples)} samples at a time than of each "
            "alone: this family cannot put its samples together; use type: command"
        )


def _in_lines(values: Sequence[Any], spans: Sequence[slice], longest: int) -> Any:
    """Put numbers of tokens one sample below the other, with zeros where there is none."""
    tails = [tuple(one.shape[2:]) for one in values]
    tail = tuple(map(max, zip(*tails, strict=True))) if tails[0] else ()
    whole = values[0].new_zeros((len(values), longest, *tail))
    for line, (one, span) in enumerate(zip(values, spans, strict=True)):
        whole[(line, span, *map(slice, one.shape[2:]))] = one[0]
    return whole


def _in_a_row(values: Sequence[Any]) -> Any:
    """Put tensors in a row along their first axis, the others filled up with zeros."""
    torch = require("torch", "clip")
    if any(one.ndim != values[0].ndim for one in values):
        raise BadInput("the processor gives images of several samples in tensors of other kinds")
    tail = tuple(max(sizes) for sizes in zip(*(one.shape[1:] for one in values), strict=True))
    if all(tuple(one.shape[1:]) == tail for one in values):
        return torch.cat(list(values))
    whole = values[0].new_zeros((sum(one.shape[0] for one in values), *tail))
    start = 0
    for one in values:
        stop = start + one.shape[0]
        whole[(slice(start, stop), *map(slice, one.shape[1:]))] = one
        start = stop
    return whole
