"""One algebra of noise for flows and diffusion: golden numbers, identities, diffusers as oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.t2v.schedule import Flow, Schedule, Vp, schedule_of, shifted

COGVIDEOX = Vp("v_prediction", snr_shift=3.0)
ALL = [Flow(), Flow(shift=5.0), Vp(), COGVIDEOX, Vp("v_prediction", zero_snr=True)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule", ALL)
def test_what_is_mixed_can_be_had_again(schedule: Schedule) -> None:
    x0, eps = drawn(6, 2, 3, seed=1), drawn(6, 2, 3, seed=2)
    times = torch.tensor([schedule.at(share) for share in (0.01, 0.2, 0.4, 0.6, 0.8, 0.95)])
    x = schedule.noised(x0, eps, times)
    out = schedule.target(x0, eps, times)
    # Where little of the signal is left, noise that is taken off is divided by that little.
    tolerance = 5e-5 if schedule == Vp() else 5e-7
    assert torch.allclose(schedule.x0(out, x, times), x0, atol=4 * tolerance)
    assert torch.allclose(schedule.eps(out, x, times), eps, atol=4 * tolerance)
    to = torch.tensor([schedule.at(share / 2) for share in (0.01, 0.2, 0.4, 0.6, 0.8, 0.95)])
    found = schedule.step(out, x, times, to)
    assert torch.allclose(found, schedule.noised(x0, eps, to), atol=8 * tolerance)
    clean = torch.full_like(times, schedule.clean)
    assert torch.equal(schedule.noised(x0, eps, clean), x0)


def test_a_step_of_ddim_is_eulers_of_a_flow() -> None:
    """Exact algebra: (1 - t') (x - t v) + t' (x + (1 - t) v) = x + (t' - t) v."""
    sympy = pytest.importorskip("sympy")
    x, v, t, to = sympy.symbols("x v t to")
    ddim = (1 - to) * (x - t * v) + to * (x + (1 - t) * v)
    assert sympy.expand(ddim - (x + (to - t) * v)) == 0
    flow, noisy, velocity = Flow(), drawn(4, 3, seed=1), drawn(4, 3, seed=2)
    here, there = torch.tensor([900.0, 500.0, 100.0, 1.0]), torch.tensor([800.0, 400.0, 50.0, 0.0])
    euler = noisy + ((there - here) / 1000)[:, None] * velocity
    assert torch.allclose(flow.step(velocity, noisy, here, there), euler, atol=5e-7)


def test_cogvideox_alphas_are_those_of_diffusers() -> None:
    assert COGVIDEOX.alphas[0] == pytest.approx(0.9974543, abs=5e-8)
    assert COGVIDEOX.alphas[999] == pytest.approx(0.0015582, abs=5e-8)
    assert COGVIDEOX.alphas[-1] == 1.0
    diffusers = pytest.importorskip("diffusers")
    for changes in ({}, {"rescale_betas_zero_snr": True}, {"snr_shift_scale": 1.0}):
        scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", **changes)
        ours = schedule_of(
            dict(scheduler.config, _class_name=type(scheduler).__name__), "uniform", 1
        )
        assert isinstance(ours, Vp)
        assert np.allclose(ours.alphas[:-1], scheduler.alphas_cumprod.numpy(), atol=1e-12)
    linear = diffusers.DDIMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    ours = schedule_of(dict(linear.config, _class_name="DDIMScheduler"), "uniform", 1)
    assert isinstance(ours, Vp)
    assert np.allclose(ours.alphas[:-1], linear.alphas_cumprod.numpy(), atol=1e-6)


def test_ddim_takes_the_steps_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False
    )
    scheduler.set_timesteps(5)
    grid = COGVIDEOX.grid(5)
    assert grid.tolist() == [*scheduler.timesteps.tolist(), -1.0]
    x = ours = drawn(2, 3, 4, seed=3)
    for number, (here, there) in enumerate(itertools.pairwise(grid.tolist())):
        out = drawn(2, 3, 4, seed=10 + number)
        x = scheduler.step(out, int(here), x, return_dict=False)[0]
        ours = COGVIDEOX.step(out, ours, torch.full((2,), here), torch.full((2,), there))
        assert torch.allclose(x.float(), ours, atol=2e-6)


@pytest.mark.parametrize("schedule", ALL)
def test_a_sampling_has_as_many_steps_as_it_is_told(schedule: Schedule) -> None:
    for steps in (1, 3, 7, 25, 61, 103, 499, 1000):
        grid = schedule.grid(steps)
        assert grid.shape == (steps + 1,)
        assert grid[-1] == schedule.clean
        assert (np.diff(grid) < 0).all()


@pytest.mark.parametrize(
    ("shift", "golden"), [(1.0, [1000, 667, 334, 1]), (7.0, [1000, 934.0, 781.4, 46.8])]
)
def test_the_times_of_a_flow_are_those_of_diffusers(shift: float, golden: list[float]) -> None:
    grid = Flow(shift).grid(4)
    assert grid[:-1] == pytest.approx(golden, abs=0.06)
    assert grid[-1] == 0
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    for steps in (1, 4, 25):
        scheduler.set_timesteps(steps)
        assert np.allclose(Flow(shift).grid(steps)[:-1], scheduler.timesteps.numpy(), atol=1e-3)


@pytest.mark.parametrize("terminal", [0.1, None])
@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_larger_clips_are_shifted_more_where_the_scheduler_says_so(
    terminal: float | None, kind: str
) -> None:
    diffusers = pytest.importorskip("diffusers")
    pipeline = pytest.importorskip("diffusers.pipelines.ltx.pipeline_ltx")
    ends = {"base_image_seq_len": 1024, "max_image_seq_len": 4096}
    shifts = {"base_shift": 0.95, "max_shift": 2.05}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=terminal, time_shift_type=kind, **ends, **shifts
    )
    settings = {"_class_name": "FlowMatchEulerDiscreteScheduler", **scheduler.config}
    for tokens in (128, 2560):
        flow = schedule_of(settings, "uniform", 2.0, tokens)
        mu = pipeline.calculate_shift(tokens, *ends.values(), *shifts.values())
        for steps in (2, 7, 25):
            scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
            assert np.allclose(flow.grid(steps)[:-1], scheduler.timesteps.numpy(), atol=1e-3)
            assert flow.grid(steps)[-1] == 0
    with pytest.raises(BadInput, match="use_dynamic_shifting: it hangs on the tokens of a clip"):
        schedule_of(settings, "uniform", 2.0)


def test_euler_takes_the_steps_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(4)
    flow, x = Flow(7.0), drawn(2, 3, 4, seed=3)
    ours = x
    for number, time in enumerate(scheduler.timesteps):
        out = drawn(2, 3, 4, seed=10 + number)
        x = scheduler.step(out, time, x, return_dict=False)[0]
        here, there = (torch.full((2,), value) for value in flow.grid(4)[number : number + 2])
        ours = flow.step(out, ours, here, there)
        assert torch.allclose(x, ours, atol=1e-6)


def test_times_are_drawn_as_they_are_said_to_be() -> None:
    def times(schedule: Schedule) -> np.ndarray:
        return np.array([schedule.draw(noise(5, number)) for number in range(4000)])

    normal, uniform = times(Flow()) / 1000, times(Flow(sampling="uniform")) / 1000
    logits = np.log(normal / (1 - normal))
    assert logits.mean() == pytest.approx(0, abs=0.06)
    assert logits.std() == pytest.approx(1, abs=0.05)
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.02)
    more = times(Flow(train_shift=3.0)) / 1000
    assert np.allclose(more, [shifted(value, 3.0) for value in normal])
    assert shifted(0.5, 3.0) == 0.75
    steps = times(Vp())
    assert set(steps) <= set(range(1000))
    assert steps.mean() == pytest.approx(499.5, abs=15)
    assert times(Vp()).tolist() == steps.tolist()


def test_schedulers_of_folders_are_read_or_refused() -> None:
    euler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 5.0}
    assert schedule_of(euler, "uniform", 2.0) == Flow(5.0, 2.0, "uniform")
    wan = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0}
    assert schedule_of(wan, "logit_normal", 1.0) == Flow(3.0)
    ddpm = {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.001,
        "beta_end": 0.01,
    }
    assert schedule_of(ddpm, "uniform", 1.0) == Vp("epsilon", 0.001, 0.01)
    cog = {**ddpm, "_class_name": "CogVideoXDPMScheduler", "prediction_type": "v_prediction"}
    assert schedule_of(cog, "uniform", 1.0) == Vp("v_prediction", 0.001, 0.01, snr_shift=3.0)
    with pytest.raises(BadInput, match="beta_schedule is 'sigmoid'; allowed: scaled_linear, line"):
        schedule_of({**ddpm, "beta_schedule": "sigmoid"}, "uniform", 1.0)
    with pytest.raises(BadInput, match="prediction_type is 'sample'"):
        schedule_of({**ddpm, "prediction_type": "sample"}, "uniform", 1.0)
    with pytest.raises(BadInput, match="num_train_timesteps is 400; allowed: 1000"):
        schedule_of({**ddpm, "num_train_timesteps": 400}, "uniform", 1.0)
    with pytest.raises(BadInput, match="zero_snr needs prediction_type: v_prediction"):
        schedule_of({**ddpm, "rescale_betas_zero_snr": True}, "uniform", 1.0)
