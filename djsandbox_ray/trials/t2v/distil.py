"""Consistency distillation: a student learns to give at once what a teacher takes many steps for.

A consistency function f takes a noisy sample at any time to the sample without noise; at the time
without noise it is the identity (Song et al. 2023, arXiv 2303.01469). The student is one; it learns
that f is the same at both ends of a step of the teacher, whose guidance thereby becomes a part of
it (Luo et al. 2023, arXiv 2310.04378). Beside that it may be rewarded for how its samples look, as
in T2V-Turbo (Li et al. 2024, arXiv 2405.18750), and held to the videos of the pool, as in the
Data-Juicer Sandbox (arXiv 2407.11784, equations 3 to 5):

    L = w_cd L_cd + w_real L_real - w_image R_image - w_video R_video

The total may well be negative; every term is reported by itself, without its weight. Step, noise
and the frames that are looked at are functions of the seed and of the sample's number, as in
:mod:`~djsandbox_ray.trials.t2v.objective`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator

from djsandbox_ray.errors import require
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.trials.lora import AdapterFolder
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.t2v.codec import Codec
from djsandbox_ray.trials.t2v.denoisers import Prompts, TransformerAdapter
from djsandbox_ray.trials.t2v.objective import Latents, PromptBook
from djsandbox_ray.trials.t2v.rewards import REWARDS, Reward, identity_of_reward
from djsandbox_ray.trials.t2v.schedule import Schedule

VERSION = 1
"""Part of the identity of trials that distil: to be raised with any change to what they compute,
by the rewards of this package, too."""

_DATA_VARIANCE = 0.25
"""Of samples, as both boundary coefficients take it (sigma_data = 0.5)."""


class TermWeights(Section):
    """What each term counts; one of weight 0 is left out. The defaults are T2V-Turbo's."""

    cd: float = Field(default=1.0, ge=0)
    """That the student is consistent along a step of the teacher."""
    real: float = Field(default=0.0, ge=0)
    """That it gives the videos of the pool."""
    image: float = Field(default=1.0, ge=0)
    """The reward of single frames."""
    video: float = Field(default=2.0, ge=0)
    """The reward of clips."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any((self.cd, self.real, self.image, self.video)):
            raise ValueError("one of them must be above 0: else nothing is learnt")
        return self


class RewardsConfig(Section):
    """What samples are rewarded for."""

    image: Annotated[SerializeAsAny[Component], component(REWARDS)] | None = None
    """``clip``, or ``package.module:Class``; sees some frames of a clip, drawn by chance."""
    video: Annotated[SerializeAsAny[Component], component(REWARDS)] | None = None
    """``video_clip``, or ``package.module:Class``; sees frames equally far apart."""


class ConsistencyConfig(Section):
    """How a student is distilled; the defaults are T2V-Turbo's."""

    type: Literal["consistency"]
    teacher: Literal["base"] | AdapterFolder = "base"
    """Whose steps are learnt: the base, or the base with adapters from a folder."""
    weights: TermWeights = TermWeights()
    """What each term counts."""
    rewards: RewardsConfig = RewardsConfig()
    """What samples are rewarded for."""
    guidance: float = Field(default=7.5, ge=0, le=100)
    """Of the teacher: how much farther than from nothing to the prompt it goes, beyond that."""
    solver_steps: int = Field(default=50, ge=2, le=1000, strict=True)
    """Of the teacher, from noise to none."""
    sampling_steps: int = Field(default=4, ge=1, le=1000, strict=True)
    """In which the distilled model makes videos, whatever ``sampling.steps`` of evaluators are;
    their ``sampling.guidance`` does not count either: it has been distilled."""
    huber: float = Field(default=0.001, gt=0)
    """Where the losses pass from squares to absolute values: sqrt(d^2 + c^2) - c."""
    real_loss: Literal["huber", "mse"] = "huber"
    """Of a sample and the video of the pool, in the space of latents."""
    time_scale: float = Field(default=10.0, gt=0)
    """Of the times, counted to 1000, in the boundary coefficients."""
    image_frames: int = Field(default=5, ge=1, le=1000, strict=True)
    """Frames of a clip that the reward of images sees."""
    video_frames: int = Field(default=8, ge=1, le=1000, strict=True)
    """Frames of a clip that the reward of videos sees."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("image", "video"):
            if getattr(self.weights, name) and getattr(self.rewards, name) is None:
                raise ValueError(f"rewards.{name} is needed, or weights.{name}: 0")
        if self.sampling_steps > self.solver_steps:
            raise ValueError(
                f"sampling_steps: {self.sampling_steps} are more than the {self.solver_steps} "
                "solver_steps, whose times the student learns"
            )
        return self

    def used(self) -> dict[str, Component]:
        """Return the rewards that count, by what they see."""
        found = {name: getattr(self.rewards, name) for name in ("image", "video")}
        return {name: one for name, one in found.items() if getattr(self.weights, name)}

    def identity(self) -> dict[str, Any]:
        """Return plain data that decides what is learnt: adapters and rewards by their content."""
        plain = self.model_dump(mode="json", exclude={"teacher", "rewards"})
        teacher = self.teacher if isinstance(self.teacher, str) else self.teacher.identity()
        rewards = {name: identity_of_reward(one) for name, one in self.used().items()}
        return {**plain, "teacher": teacher, "rewards": rewards, "version": VERSION}

    def lost(self) -> list[str]:
        """Return what of the files is not there, a phrase each."""
        found = [
            f"rewards.{name}.{phrase}"
            for name, one in self.used().items()
            for phrase in REWARDS.get(one.type)(one).lost()
        ]
        if isinstance(self.teacher, AdapterFolder):
            found += [f"teacher.{phrase}" for phrase in self.teacher.lost()]
        return found


@dataclass(frozen=True)
class Consistency:
    """The consistency function of a model.

    f(x, t) = c_skip(t) x + c_out(t) x0(x, t), with c_skip = .25 / (u^2 + .25) and c_out = u /
    sqrt(u^2 + .25), where u is the scaled distance of t from the time without noise: there f is x.
    """

    adapter: TransformerAdapter
    schedule: Schedule
    scale: float
    """Of the times."""

    def __call__(self, forward: Callable[..., Any], x: Any, times: Any, prompts: Prompts) -> Any:
        """Return samples without noise; float32, shape as ``x``.

        Args:
            forward: the transformer, or what stands for it in training.
            x: noisy latents, shape (n, channels, frames, height, width).
            times: shape (n,).
            prompts: n of them.
        """
        out = self.adapter(forward, x, times, prompts).float()
        above = (self.scale * (times - self.schedule.clean)).reshape(-1, *[1] * (x.ndim - 1))
        skip = _DATA_VARIANCE / (above**2 + _DATA_VARIANCE)
        through = above / (above**2 + _DATA_VARIANCE) ** 0.5
        return skip * x + through * self.schedule.x0(out, x, times)


def solver_grid(schedule: Schedule, steps: int) -> NDArray[np.float64]:
    """Return the times of a teacher's solver, the one without noise first; shape (steps + 1,)."""
    return schedule.grid(steps)[::-1].copy()


@dataclass(frozen=True)
class DistilBatch:
    """Samples as a student sees them, on the CPU; torch tensors."""

    latents: Any
    """Without noise, float32, shape (n, channels, frames, height, width)."""
    noise: Any
    """Likewise."""
    times: Any
    """Where the student is asked, float32, shape (n,)."""
    next: Any
    """A step of the teacher nearer to no noise, likewise."""
    frames: Any
    """Which frames the reward of images sees, int64, shape (n, frames)."""
    prompts: Prompts
    """n of them."""
    captions: tuple[str, ...]
    """The texts of these."""

    def __len__(self) -> int:
        return len(self.captions)

    def part(self, start: int, stop: int) -> DistilBatch:
        """Return some of the samples."""
        some = slice(start, stop)
        return DistilBatch(
            self.latents[some],
            self.noise[some],
            self.times[some],
            self.next[some],
            self.frames[some],
            self.prompts.take(some),
            self.captions[some],
        )


class Distillation:
    """The objective: a student that is consistent along its teacher's steps, and rewarded.

    Args:
        model: the student on its device.
        teacher: a frozen transformer there, which may share tensors with it.
        consistency: the consistency function.
        codec: decodes samples for rewards.
        latents: of the draw.
        captions: of the draw, as many.
        book: has all of them.
        frames: of a clip.
        config: of the distillation.
        rewards: those that count, by what they see; made ready.
        seed: of the trial.
        device: a torch device name.
    """

    def __init__(
        self,
        model: Any,
        teacher: Any,
        consistency: Consistency,
        codec: Codec,
        latents: Latents,
        captions: Sequence[str],
        book: PromptBook,
        frames: int,
        config: ConsistencyConfig,
        rewards: Mapping[str, Reward],
        seed: int,
        device: str,
    ) -> None:
        self.model, self._teacher = model, teacher
        self._consistency, self._codec, self._latents = consistency, codec, latents
        self._captions, self._book, self._places = captions, book, book.places(captions)
        self._frames, self._config, self._rewards = frames, config, rewards
        self._grid = solver_grid(consistency.schedule, config.solver_steps)
        self._seed, self._device = seed, device

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> DistilBatch:
        """Read latents, and draw all that is random about the samples."""
        torch, config = require("torch", "clip"), self._config
        latents = self._latents.take(positions).astype(np.float32)
        steps = np.empty(len(order), np.int64)
        drawn = np.empty_like(latents)
        frames = np.empty((len(order), min(config.image_frames, self._frames)), np.int64)
        for place, number in enumerate(order.tolist()):
            random = noise(self._seed, number)
            steps[place] = random.integers(1, config.solver_steps + 1)
            frames[place] = np.sort(random.choice(self._frames, frames.shape[1], replace=False))
            drawn[place] = random.standard_normal(latents.shape[1:], np.float32)
        here, there = (self._grid[some].astype(np.float32) for some in (steps, steps - 1))
        return DistilBatch(
            torch.from_numpy(latents),
            torch.from_numpy(drawn),
            torch.from_numpy(here),
            torch.from_numpy(there),
            torch.from_numpy(frames),
            self._book.take(self._places[positions]),
            tuple(self._captions[at] for at in positions),
        )

    def weight(self, batch: DistilBatch) -> float:
        """Return the number of samples."""
        return float(len(batch))

    def split(self, batch: DistilBatch, size: int) -> list[DistilBatch]:
        """Cut a batch in its order."""
        return [batch.part(start, start + size) for start in range(0, len(batch), size)]

    def loss(self, forward: Callable[..., Any], batch: DistilBatch) -> tuple[Any, dict[str, Any]]:
        """Return the sum over the samples of their weighted terms, and the terms' sums."""
        weights, config = self._config.weights, self._config
        x0, drawn, times, after = (
            one.to(self._device) for one in (batch.latents, batch.noise, batch.times, batch.next)
        )
        prompts = batch.prompts.map(lambda value: value.to(self._device))
        x = self._consistency.schedule.noised(x0, drawn, times)
        # First what needs no gradient: workers that share the model out follow one order.
        target = self._target(x, times, after, prompts) if weights.cd else None
        found = self._consistency(forward, x, times, prompts)
        terms: dict[str, Any] = {}
        signed: dict[str, float] = {}
        if target is not None:
            terms["cd"], signed["cd"] = pseudo_huber(found, target, config.huber), weights.cd
        if weights.real:
            terms["real"], signed["real"] = self._real(found, x0), weights.real
        for name, reward in self._seen(found, batch).items():
            terms[f"reward_{name}"] = reward
            signed[f"reward_{name}"] = -float(getattr(weights, name))
        total = sum(signed[name] * value.sum() for name, value in terms.items())
        return total, {name: value.sum().detach() for name, value in terms.items()}

    def _target(self, x: Any, times: Any, after: Any, prompts: Prompts) -> Any:
        """Return what the student is to give: what it gives after a step of the teacher.

        Guidance is that of latent consistency models, x0 + w (x0 - x0 of nothing), and so of eps.
        Both are linear in what the transformer gives, so that mixing these is the same.
        """
        torch, schedule = require("torch", "clip"), self._consistency.schedule
        kind = torch.device(self._device).type
        # Under autocast, copies of weights that are made without gradients would be taken for the
        # pass with them, too.
        cast = torch.autocast(
            kind, torch.bfloat16, torch.is_autocast_enabled(kind), cache_enabled=False
        )
        with torch.no_grad(), cast:
            out = self._consistency.adapter(self._teacher, x, times, prompts).float()
            if guidance := self._config.guidance:
                nothing = self._book.take(np.zeros(len(x), np.int64))
                nothing = nothing.map(lambda value: value.to(self._device))
                without = self._consistency.adapter(self._teacher, x, times, nothing).float()
                out = out + guidance * (out - without)
            nearer = schedule.step(out, x, times, after)
            return self._consistency(self.model, nearer, after, prompts)

    def _real(self, found: Any, x0: Any) -> Any:
        if self._config.real_loss == "mse":
            return ((found - x0) ** 2).flatten(1).mean(dim=1)
        return pseudo_huber(found, x0, self._config.huber)

    def _seen(self, found: Any, batch: DistilBatch) -> dict[str, Any]:
        """Return the rewards of samples, by what they see; shape (n,) each."""
        if not self._rewards:
            return {}
        torch = require("torch", "clip")
        # All of the window is decoded: causal codecs know no single frames.
        pixels = (self._codec.decode(found) / 2 + 0.5).clamp(0, 1).permute(0, 1, 4, 2, 3).float()
        whole, rewards = self._frames, {}
        for name, reward in self._rewards.items():
            if name == "image":
                rows = torch.arange(len(pixels), device=pixels.device)[:, None]
                some = pixels[rows, batch.frames.to(pixels.device)]
            else:
                apart = np.linspace(0, whole - 1, min(self._config.video_frames, whole)).round()
                some = pixels[:, apart.astype(np.int64).tolist()]
            rewards[name] = reward(some, batch.captions).float()
        return rewards


def pseudo_huber(found: Any, target: Any, c: float) -> Any:
    """Return the mean of sqrt(d^2 + c^2) - c of every sample; shape (n,).

    Args:
        found: shape (n, ...).
        target: likewise.
        c: from squares, for smaller differences, to absolute values.
    """
    return (((found - target) ** 2 + c**2) ** 0.5 - c).flatten(1).mean(dim=1)
