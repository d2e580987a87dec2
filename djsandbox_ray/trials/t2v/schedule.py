"""How noise and signal are mixed, and what a denoiser foretells of them: one algebra for all.

A noisy sample is x = a x0 + s eps, where a and s are functions of a time. A denoiser gives, of x
and the time, something from which both x0 and eps can be had; a step to another time mixes these
anew. That is DDIM (Song et al. 2021, arXiv 2010.02502, equation 12 without noise); of a flow it is
Euler's step, by exact algebra.

Numbers are of any type with the usual operators: floats, arrays of numpy, tensors of torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, require

STEPS = 1000
"""In which diffusers counts times, of flows too."""

TimeSampling = Literal["logit_normal", "uniform"]


class Schedule(ABC):
    """Times, and what they mean. Those of a batch are shape (n,), its samples (n, ...)."""

    clean: float
    """The time without noise."""

    @abstractmethod
    def coefficients(self, times: Any, like: Any) -> tuple[Any, Any]:
        """Return a and s of times, to be multiplied with samples.

        Args:
            times: shape (n,).
            like: a tensor, shape (n, ...): as its type, device and number of dimensions.
        """

    @abstractmethod
    def target(self, x0: Any, noise: Any, times: Any) -> Any:
        """Return what a denoiser is to foretell of a sample with so much noise."""

    @abstractmethod
    def x0(self, out: Any, x: Any, times: Any) -> Any:
        """Return the sample without noise, as a denoiser foretells it."""

    @abstractmethod
    def eps(self, out: Any, x: Any, times: Any) -> Any:
        """Return the noise, as a denoiser foretells it."""

    @abstractmethod
    def draw(self, random: np.random.Generator) -> float:
        """Draw a time to learn at."""

    @abstractmethod
    def at(self, share: float) -> float:
        """Return the time that lies at a share of all, from 0 to 1."""

    @abstractmethod
    def grid(self, steps: int) -> NDArray[np.float64]:
        """Return the times of a sampling from noise to :attr:`clean`; shape (steps + 1,)."""

    def noised(self, x0: Any, noise: Any, times: Any) -> Any:
        """Mix samples with noise."""
        a, s = self.coefficients(times, x0)
        return a * x0 + s * noise

    def step(self, out: Any, x: Any, times: Any, to: Any) -> Any:
        """Go from times to others, in the direction that a denoiser foretells."""
        a, s = self.coefficients(to, x)
        return a * self.x0(out, x, times) + s * self.eps(out, x, times)


@dataclass(frozen=True)
class Flow(Schedule):
    """Rectified flow (Liu et al. 2022, arXiv 2209.03003): x = (1 - t) x0 + t eps.

    A denoiser foretells the velocity, eps - x0. Times are counted from 0 to 1000.
    """

    shift: float = 1.0
    """Of the times of a sampling: s t / (1 + (s - 1) t), towards more noise above 1 (Esser et al.
    2024, arXiv 2403.03206, equation 23)."""
    train_shift: float = 1.0
    """Likewise, of those to learn at."""
    sampling: TimeSampling = "logit_normal"
    """How times to learn at are drawn, before they are shifted."""
    even: bool = False
    """Whether the times of a sampling lie equally far apart before they are shifted, the last at 1
    / steps: so has a pipeline them whose shift hangs on the size of clips."""
    least: float | None = None
    """To which the last of these is stretched, as a share of all noise, and the others with it."""
    clean: float = field(default=0.0, init=False)

    def coefficients(self, times: Any, like: Any) -> tuple[Any, Any]:
        """Return 1 - t and t."""
        sigma = _like(times, like) / STEPS
        return 1 - sigma, sigma

    def target(self, x0: Any, noise: Any, times: Any) -> Any:
        """Return the velocity."""
        return noise - x0

    def x0(self, out: Any, x: Any, times: Any) -> Any:
        """Return x - s out."""
        _, s = self.coefficients(times, x)
        return x - s * out

    def eps(self, out: Any, x: Any, times: Any) -> Any:
        """Return x + a out."""
        a, _ = self.coefficients(times, x)
        return x + a * out

    def draw(self, random: np.random.Generator) -> float:
        """Draw from a logistic normal distribution, or from all alike; then shift."""
        if self.sampling == "uniform":
            share = float(random.random())
        else:
            share = float(1 / (1 + np.exp(-random.standard_normal())))
        return STEPS * shifted(share, self.train_shift)

    def at(self, share: float) -> float:
        """Return the share of 1000."""
        return STEPS * share

    def grid(self, steps: int) -> NDArray[np.float64]:
        """Return the times of diffusers' ``FlowMatchEulerDiscreteScheduler``.

        Its least time is shifted twice, where they are not ``even``.
        """
        last = 1 / steps if self.even else shifted(1 / STEPS, self.shift)
        shares = np.array([shifted(share, self.shift) for share in np.linspace(1.0, last, steps)])
        if self.least is not None and steps > 1:
            shares = 1 - (1 - shares) * (1 - self.least) / (1 - shares[-1])
        return STEPS * np.append(shares, 0.0)


def shifted(share: float, shift: float) -> float:
    """Return a share of all noise, shifted towards more of it."""
    return float(shift * share / (1 + (shift - 1) * share))


@dataclass(frozen=True)
class Vp(Schedule):
    """Variance-preserving diffusion (Ho et al. 2020): a^2 = alphas_cumprod, s^2 = 1 - a^2.

    Times are the numbers of steps, 0 to 999; -1 is without noise.
    """

    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    """What a denoiser foretells: the noise, or v = a eps - s x0 (Salimans and Ho 2022, arXiv
    2202.00512, section 4)."""
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    snr_shift: float = 1.0
    """By which CogVideoX divides the ratio of signal to noise (3)."""
    zero_snr: bool = False
    """Whether nothing of the signal is left at the last step (Lin et al. 2023, arXiv 2305.08891,
    algorithm 1)."""
    clean: float = field(default=-1.0, init=False)

    def __post_init__(self) -> None:
        if self.zero_snr and self.prediction == "epsilon":
            raise BadInput(
                "scheduler: rescale_betas_zero_snr needs prediction_type: v_prediction: of noise "
                "alone, its own noise tells nothing about the signal"
            )

    @cached_property
    def alphas(self) -> NDArray[np.float64]:
        """The squares of a at the steps, and 1 behind them, for the time -1; shape (1001,)."""
        power = 2 if self.beta_schedule == "scaled_linear" else 1
        ends = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        found = np.cumprod(1 - np.linspace(*ends, STEPS) ** power)
        found = found / (self.snr_shift + (1 - self.snr_shift) * found)
        if self.zero_snr:
            root = np.sqrt(found)
            found = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return np.append(found, 1.0)

    def coefficients(self, times: Any, like: Any) -> tuple[Any, Any]:
        """Return the roots of alphas_cumprod, and of what is left to 1."""
        steps = np.asarray(times.cpu() if hasattr(times, "cpu") else times).astype(np.int64)
        alphas = self.alphas[steps]
        return _like(np.sqrt(alphas), like), _like(np.sqrt(1 - alphas), like)

    def target(self, x0: Any, noise: Any, times: Any) -> Any:
        """Return the noise, or v."""
        if self.prediction == "epsilon":
            return noise
        a, s = self.coefficients(times, x0)
        return a * noise - s * x0

    def x0(self, out: Any, x: Any, times: Any) -> Any:
        """Return (x - s out) / a, of v a x - s out."""
        a, s = self.coefficients(times, x)
        return (x - s * out) / a if self.prediction == "epsilon" else a * x - s * out

    def eps(self, out: Any, x: Any, times: Any) -> Any:
        """Return out, of v a out + s x."""
        if self.prediction == "epsilon":
            return out
        a, s = self.coefficients(times, x)
        return a * out + s * x

    def draw(self, random: np.random.Generator) -> float:
        """Draw from all steps alike."""
        return float(random.integers(STEPS))

    def at(self, share: float) -> float:
        """Return the step at a share of all."""
        return float(round(share * (STEPS - 1)))

    def grid(self, steps: int) -> NDArray[np.float64]:
        """Return steps from the last on, equally far apart (``timestep_spacing: trailing``)."""
        # Of some numbers of steps, what is left of rounding makes one more.
        each = np.round(np.arange(STEPS, 0, -STEPS / steps)[:steps]) - 1
        return np.append(each, self.clean)


_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_SPACINGS = ("scaled_linear", "linear")


def schedule_of(
    settings: Mapping[str, Any], sampling: TimeSampling, shift: float, tokens: int | None = None
) -> Schedule:
    """Return the schedule that a scheduler of diffusers stands for.

    Args:
        settings: its ``scheduler_config.json``.
        sampling: how times to learn at are drawn, of a flow.
        shift: of these, of a flow.
        tokens: that the transformer makes of a clip; some schedulers shift the times of larger
            ones more (``use_dynamic_shifting``: LTX).

    Raises:
        BadInput: no schedule here stands for it.
    """
    name = settings.get("_class_name", "")
    prediction = settings.get("prediction_type", "epsilon")
    if name in _FLOWS and settings.get("use_dynamic_shifting"):
        own = _dynamic_shift(settings, tokens)
        return Flow(own, shift, sampling, even=True, least=settings.get("shift_terminal") or None)
    if name in _FLOWS or settings.get("use_flow_sigmas") or prediction == "flow_prediction":
        own = settings.get("flow_shift", settings.get("shift", 1.0))
        return Flow(float(own or 1.0), shift, sampling)
    wrong = {
        "prediction_type": (prediction, ("epsilon", "v_prediction")),
        "beta_schedule": (settings.get("beta_schedule"), _SPACINGS),
        "num_train_timesteps": (settings.get("num_train_timesteps", STEPS), (STEPS,)),
        "trained_betas": (settings.get("trained_betas"), (None,)),
    }
    for key, (value, allowed) in wrong.items():
        if value not in allowed:
            raise BadInput(
                f"scheduler {name!r}: {key} is {value!r}; allowed: {', '.join(map(str, allowed))}, "
                f"or a flow ({', '.join(_FLOWS)})"
            )
    return Vp(
        prediction,
        float(settings["beta_start"]),
        float(settings["beta_end"]),
        settings["beta_schedule"],
        # Only CogVideoX' own schedulers shift, and always do.
        float(settings.get("snr_shift_scale", 3.0 if name.startswith("CogVideoX") else 1.0)),
        bool(settings.get("rescale_betas_zero_snr", False)),
    )


def _dynamic_shift(settings: Mapping[str, Any], tokens: int | None) -> float:
    """Return the shift of clips of so many tokens: its logarithm is linear in their number."""
    if tokens is None:
        raise BadInput("scheduler: use_dynamic_shifting: it hangs on the tokens of a clip")
    few, many = settings.get("base_image_seq_len", 256), settings.get("max_image_seq_len", 4096)
    low, high = settings.get("base_shift", 0.5), settings.get("max_shift", 1.15)
    found = low + (high - low) * (tokens - few) / (many - few)
    is_linear = settings.get("time_shift_type") == "linear"
    return float(found if is_linear else np.exp(found))


def _like(values: Any, like: Any) -> Any:
    """Return one number per sample in a form that multiplies samples."""
    if not hasattr(like, "device") or isinstance(like, np.ndarray | np.generic):
        return np.asarray(values).reshape(-1, *[1] * (np.ndim(like) - 1))
    torch = require("torch", "clip")
    numbers = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    return numbers.reshape(-1, *[1] * (like.ndim - 1))
