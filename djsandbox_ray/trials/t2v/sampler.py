"""Videos from noise, for models of any of the adapters.

A denoiser takes Euler's steps or DDIM's, with guidance. A distilled model gives the whole sample at
every step; but for the last, that is mixed with fresh noise for the next (multistep consistency
sampling, Song et al. 2023, arXiv 2303.01469, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import require
from djsandbox_ray.trials.t2v.codec import Codec, as_pixels
from djsandbox_ray.trials.t2v.denoisers import Prompts, TransformerAdapter
from djsandbox_ray.trials.t2v.distil import Consistency, solver_grid
from djsandbox_ray.trials.t2v.schedule import Schedule


def sampled(
    model: Any,
    adapter: TransformerAdapter,
    schedule: Schedule,
    start: Any,
    prompts: Prompts,
    nothing: Prompts,
    steps: int,
    guidance: float = 1.0,
) -> Any:
    """Return latents of videos that fit prompts.

    Args:
        model: the transformer.
        adapter: calls it.
        schedule: of noise.
        start: noise on the device of the model, shape (n, channels, frames, height, width).
        prompts: n of them, there too.
        nothing: the empty prompt, one.
        steps: from noise to none.
        guidance: how much farther than from nothing to the prompt it goes (Ho and Salimans 2022,
            arXiv 2207.12598, in the form of diffusers); 1 for not at all.

    Returns:
        float32, shape as ``start``.
    """
    torch = require("torch", "clip")
    empty = nothing.take([0] * len(prompts))
    x = start
    with torch.no_grad():
        for here, there in pairwise(schedule.grid(steps).tolist()):
            times, to = (torch.full((len(x),), value, device=x.device) for value in (here, there))
            out = adapter(model, x, times, prompts).float()
            if guidance != 1.0:
                without = adapter(model, x, times, empty).float()
                out = without + guidance * (out - without)
            x = schedule.step(out, x, times, to)
    return x


def sampled_at_once(
    model: Any,
    consistency: Consistency,
    rngs: Sequence[np.random.Generator],
    shape: Sequence[int],
    prompts: Prompts,
    steps: int,
    solver_steps: int,
    device: str,
) -> Any:
    """Return latents of videos that fit prompts, by a model that was distilled.

    Args:
        model: the transformer.
        consistency: its consistency function.
        rngs: of the noise of every video, first and fresh.
        shape: of the latents of one: channels, frames, height, width.
        prompts: as many, on the device.
        steps: how often the model is asked: at times of the solver, equally far apart.
        solver_steps: of the teacher when it was distilled.
        device: a torch device name.

    Returns:
        float32, shape (n, *shape).
    """
    torch = require("torch", "clip")
    grid = solver_grid(consistency.schedule, solver_steps)
    places = [round(solver_steps * (steps - step) / steps) for step in range(steps)]

    def drawn() -> Any:
        found = [random.standard_normal(tuple(shape), np.float32) for random in rngs]
        return torch.from_numpy(np.stack(found)).to(device)

    x = drawn()
    with torch.no_grad():
        for number, place in enumerate(places):
            times = torch.full((len(x),), float(grid[place]), device=x.device)
            if number:
                x = consistency.schedule.noised(x, drawn(), times)
            x = consistency(model, x, times, prompts)
    return x


def videos(codec: Codec, latents: Any, batch: int = 8) -> NDArray[np.uint8]:
    """Return latents as frames; shape (n, frames, height, width, 3)."""
    torch = require("torch", "clip")
    with torch.no_grad():
        parts = [
            as_pixels(codec.decode(latents[start : start + batch]).float()).cpu()
            for start in range(0, len(latents), batch)
        ]
    found: NDArray[np.uint8] = torch.cat(parts).numpy()
    return found
