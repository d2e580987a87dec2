"""A student is consistent along its teacher's steps, is rewarded, and is kept for the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from recorded import check
from t2v_world import TEXT, TOKENS, moving, randomised, wan, write_clips

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import DenoisingConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, VideoMaker, WantedVideo
from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import answering
from djsandbox_ray.trials.base import BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialData, TrialTask
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import AdditiveConfig, AdditiveTraining
from djsandbox_ray.trials.lora import AdapterFolder, Adapters, put_adapters
from djsandbox_ray.trials.shared_folder import kept_model
from djsandbox_ray.trials.strategies.strategy import Group, twin
from djsandbox_ray.trials.t2v.base import T2vBase, VideoBaseConfig
from djsandbox_ray.trials.t2v.base_folder import Prompter, load_video_base
from djsandbox_ray.trials.t2v.codec import Ratios
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.denoisers import Prompts, Surroundings, Wan
from djsandbox_ray.trials.t2v.distil import (
    VERSION,
    Consistency,
    ConsistencyConfig,
    Distillation,
    pseudo_huber,
    solver_grid,
)
from djsandbox_ray.trials.t2v.evaluated import EvaluationLatents
from djsandbox_ray.trials.t2v.family import T2v, taught
from djsandbox_ray.trials.t2v.latents import StoredLatents, write_latents
from djsandbox_ray.trials.t2v.maker import VideoModel
from djsandbox_ray.trials.t2v.objective import PromptBook
from djsandbox_ray.trials.t2v.patches import PatchCodec
from djsandbox_ray.trials.t2v.rewards import Reward
from djsandbox_ray.trials.t2v.sampler import sampled_at_once
from djsandbox_ray.trials.t2v.schedule import Flow, Schedule, Vp, schedule_of
from djsandbox_ray.trials.t2v.training_clips import Clips

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, SEED, FRAMES, SIDE = 24, 3, 5, 16
SHAPE = ClipShape(FRAMES, (SIDE, SIDE))
LATENT = (12, 2, 4, 4)
SCHEDULES = [Flow(), Flow(shift=5.0), Vp(), Vp("v_prediction", snr_shift=3.0)]
CLIPS = {"type": "clips", "samples": 40, "seed": 7, "frames": FRAMES, "size": SIDE}


class Brightness(Reward):
    """How light frames are: a reward without a model."""

    def __call__(self, frames: Any, prompts: Sequence[str]) -> Any:
        assert frames.ndim == 5
        assert frames.shape[2] == 3
        assert len(frames) == len(prompts)
        return frames.flatten(1).mean(dim=1)


OURS = f"{__name__}:Brightness"
REWARDED = {"image": {"type": OURS}, "video": {"type": OURS}}


def distilling(**changes: Any) -> ConsistencyConfig:
    """Return settings with the weights of equation 4."""
    settings = {
        "type": "consistency",
        "weights": {"cd": 0.5, "real": 0.5, "image": 1, "video": 2},
        "rewards": REWARDED,
        "solver_steps": 10,
        "image_frames": 3,
        **changes,
    }
    return ConsistencyConfig(**settings)


# The function


class Constant:
    """A transformer that foretells the same, whatever it sees."""

    def __call__(
        self, forward: Callable[..., Any], latents: Any, times: Any, prompts: Prompts
    ) -> Any:
        return torch.full_like(latents, 0.25)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_without_noise_it_is_the_identity(schedule: Schedule) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, *LATENT)).astype(np.float32))
    consistent = Consistency(Constant(), schedule, 10.0)
    clean = torch.full((2,), schedule.clean)
    assert consistent(None, x, clean, None).equal(x)
    later = torch.full((2,), float(solver_grid(schedule, 10)[-1]))
    x0 = schedule.x0(torch.full_like(x, 0.25), x, later)
    assert torch.allclose(consistent(None, x, later, None), x0, atol=1e-3, rtol=1e-3)


def test_the_boundary_coefficients_are_those_of_latent_consistency_models() -> None:
    x = torch.ones(1, *LATENT)
    schedule = Flow()
    found = Consistency(Constant(), schedule, 10.0)(None, x, torch.tensor([0.1]), None)
    x0 = 1 - 0.1 / 1000 * 0.25
    assert found.flatten()[0].item() == pytest.approx(0.25 / 1.25 + x0 / 1.25**0.5, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_solver_ends_without_noise(schedule: Schedule) -> None:
    grid = solver_grid(schedule, 50)
    assert grid.shape == (51,)
    assert grid[0] == schedule.clean
    assert (np.diff(grid) > 0).all()


def test_the_loss_passes_from_squares_to_absolute_values() -> None:
    found, target = torch.tensor([[0.0, 3.0], [1e-5, 0.0]]), torch.zeros(2, 2)
    assert pseudo_huber(found, target, 0.001)[0].item() == pytest.approx(1.5, abs=1e-3)
    assert pseudo_huber(found, target, 0.001)[1].item() == pytest.approx(1e-10 / 4e-3, rel=0.1)


# The objective


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SampleTable:
    return write_clips(tmp_path_factory.mktemp("clips"), ROWS, frames=FRAMES, size=SIDE)


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return PatchCodec.fitted(moving(60, seed=9, size=SIDE))[0]


@pytest.fixture(scope="module")
def stored(table: SampleTable, codec: PatchCodec, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("latents") / "x.lance")
    write_latents(uri, Clips(table.uri, SHAPE, np.arange(ROWS)), codec)
    return uri


def transformer() -> Any:
    return randomised(wan(channels=12, layers=1)).requires_grad_(False)


def encode(texts: Sequence[str]) -> Prompts:
    """Return prompts whose embeddings hang on the text alone."""
    seeds = [len(text) * 97 + sum(text.encode()) for text in texts]
    made = [torch.randn(TOKENS, TEXT, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return Prompts(torch.stack(made))


class Bench:
    """A student, its teacher and their samples.

    Args:
        table: of clips.
        stored: their latents.
        codec: of these.
        config: of the distillation.
        schedule: of noise.
    """

    def __init__(
        self,
        table: SampleTable,
        stored: str,
        codec: PatchCodec,
        config: ConsistencyConfig,
        schedule: Schedule | None = None,
    ) -> None:
        self.base = transformer()
        self.model = twin(self.base)
        put_adapters(self.model, 4, 4.0, Wan.TARGETS, SEED, "lora.targets")
        adapter = Wan(self.model.config, Surroundings(Ratios(4, 4, 12)))
        self.consistent = Consistency(adapter, schedule or Flow(), config.time_scale)
        self.captions = Clips(table.uri, SHAPE, np.arange(ROWS)).captions()
        rewards: Mapping[str, Reward] = {n: Brightness(c) for n, c in config.used().items()}
        self.work = Distillation(
            self.model,
            self.base,
            self.consistent,
            codec,
            StoredLatents(stored, np.arange(ROWS)),
            self.captions,
            PromptBook(self.captions, encode),
            FRAMES,
            config,
            rewards,
            SEED,
            "cpu",
        )

    def train(self, folder: Path | None = None, **settings: Any) -> dict[str, Any]:
        """Train on 40 samples; go on from a folder where there is something in it."""
        config = AdditiveConfig(batch_size=10, learning_rate=1e-2, weight_decay=0.0, **settings)
        self.training = AdditiveTraining(self.work, ROWS, config, SEED, "cpu")
        if folder is not None and any(folder.iterdir()):
            assert self.training.load(folder)
        self.states = []
        for state in self.training.run([20, 40]):
            self.states.append(state)
            if folder is not None and state.samples == 20:
                self.training.save(folder)
        return self.training.weights()


@pytest.fixture
def bench(table: SampleTable, stored: str, codec: PatchCodec) -> Callable[..., Bench]:
    def make(schedule: Schedule | None = None, **changes: Any) -> Bench:
        return Bench(table, stored, codec, distilling(**changes), schedule)

    return make


def test_all_that_is_random_is_that_of_the_sample(bench: Callable[..., Bench]) -> None:
    work = bench().work
    whole = work.collate(np.arange(6), np.arange(100, 106))
    part = work.collate(np.array([4]), np.array([104]))
    for name in ("latents", "noise", "times", "next", "frames"):
        assert getattr(whole, name)[4:5].equal(getattr(part, name)), name
    assert whole.captions[4:5] == part.captions
    many = work.collate(np.zeros(300, np.int64), np.arange(300))
    grid = solver_grid(Flow(), 10).astype(np.float32)
    assert set(many.times.tolist()) == set(grid[1:].tolist())
    assert set(many.next.tolist()) == set(grid[:-1].tolist())
    assert (many.next < many.times).all()
    assert many.frames.shape == (300, 3)
    assert set(many.frames.flatten().tolist()) == set(range(FRAMES))
    assert (many.frames.diff(dim=1) > 0).all()
    assert work.weight(whole) == 6
    parts = work.split(whole, 4)
    assert [len(one) for one in parts] == [4, 2]
    losses = [float(work.loss(work.model, one)[0].detach()) for one in (whole, *parts)]
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_target_is_a_guided_step_of_the_teacher(
    schedule: Schedule, bench: Callable[..., Bench]
) -> None:
    made = bench(schedule, guidance=4.0)
    batch = made.work.collate(np.arange(5), np.arange(5))
    x = schedule.noised(batch.latents, batch.noise, batch.times)
    adapter, empty = made.consistent.adapter, encode([""]).take([0] * 5)
    with torch.no_grad():
        told, untold = (adapter(made.base, x, batch.times, p) for p in (batch.prompts, empty))
        clean, blank = (schedule.x0(out, x, batch.times) for out in (told, untold))
        noisy, dull = (schedule.eps(out, x, batch.times) for out in (told, untold))
        a, s = schedule.coefficients(batch.next, x)
        nearer = a * (clean + 4 * (clean - blank)) + s * (noisy + 4 * (noisy - dull))
        wanted = made.consistent(made.model, nearer, batch.next, batch.prompts)
        found = made.work._target(x, batch.times, batch.next, batch.prompts)
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_total_is_the_weighted_sum_of_the_terms_that_count(bench: Callable[..., Bench]) -> None:
    made = bench()
    batch = made.work.collate(np.arange(5), np.arange(5))
    total, terms = made.work.loss(made.model, batch)
    assert set(terms) == {"cd", "real", "reward_image", "reward_video"}
    signed = {"cd": 0.5, "real": 0.5, "reward_image": -1, "reward_video": -2}
    wanted = sum(signed[name] * float(value) for name, value in terms.items())
    assert float(total.detach()) == pytest.approx(wanted, rel=1e-5)
    for name, term in (("cd", "cd"), ("real", "real"), ("image", "reward_image")):
        weights = {"cd": 0.5, "real": 0.5, "image": 1, "video": 2, name: 0}
        less, others = bench(weights=weights).work.loss(made.model, batch)
        assert set(others) == set(terms) - {term}
        assert float(less.detach()) == pytest.approx(
            wanted - signed[term] * float(terms[term]), rel=1e-4
        )
    square = bench(real_loss="mse").work.loss(made.model, batch)[1]["real"]
    assert float(square) != float(terms["real"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["cd", "real", "image", "video"])
def test_every_term_reaches_the_adapters_and_nothing_else(
    name: str, precision: str, bench: Callable[..., Bench]
) -> None:
    weights = {"cd": 0, "real": 0, "image": 0, "video": 0, name: 1}
    made = bench(weights=weights)
    batch = made.work.collate(np.arange(4), np.arange(4))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        made.work.loss(made.model, batch)[0].backward()
    reached = {n for n, p in made.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n for n in reached if ".lora_B" in n}
    assert all(".lora_" in n for n in reached)
    assert all(p.grad is None for p in made.base.parameters())


def test_training_changes_the_student_and_not_its_teacher(bench: Callable[..., Bench]) -> None:
    made = bench(weights={"cd": 1, "real": 1, "image": 0, "video": 0})
    before = {name: value.clone() for name, value in made.base.state_dict().items()}
    weights = made.train()
    assert all(".lora_" in name for name in weights)
    assert any(value.any() for name, value in weights.items() if ".lora_B" in name)
    after = made.base.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    assert {"cd", "real", "gradient_norm"} == set(made.states[0].terms)
    assert all(state.terms["cd"] > 0 and state.terms["real"] > 0 for state in made.states)


def test_the_version_stands_for_the_numbers_of_a_distillation(bench: Callable[..., Bench]) -> None:
    made = bench()
    made.train()
    found = {
        "losses": [state.loss for state in made.states],
        **{name: [one.terms[name] for one in made.states] for name in made.states[0].terms},
    }
    places = "trials/t2v/distil.py or trials/loop.py"
    check("t2v distillation", f"{VERSION}.{LOOP_VERSION}", places, found)


def test_neither_micro_batches_nor_resuming_change_it(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    whole = bench().train(tmp_path)
    cut = bench().train(micro_batch=3)
    assert all(torch.allclose(cut[name], value, atol=1e-4) for name, value in whole.items())
    resumed = bench()
    again = resumed.train(tmp_path)
    assert [state.samples for state in resumed.states] == [40]
    assert all(again[name].equal(value) for name, value in whole.items())


# Sampling


class Perfect:
    """Knows the one video that there is."""

    def __init__(self, schedule: Schedule, video: Any) -> None:
        self.schedule, self.video, self.asked = schedule, video, list[float]()

    def __call__(
        self, forward: Callable[..., Any], latents: Any, times: Any, prompts: Prompts
    ) -> Any:
        self.asked.append(float(times[0]))
        a, s = self.schedule.coefficients(times, latents)
        x0 = self.video.expand_as(latents)
        noise = (latents - a * x0) / s
        return self.schedule.target(x0, noise, times)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_distilled_model_is_asked_at_times_that_it_has_learnt(
    schedule: Schedule, steps: int
) -> None:
    video = torch.randn(1, *LATENT, generator=torch.Generator().manual_seed(0))
    perfect = Perfect(schedule, video)
    rngs = [WantedVideo("a", number).rng() for number in range(2)]
    found = sampled_at_once(
        None, Consistency(perfect, schedule, 10.0), rngs, LATENT, encode(["a"]), steps, 10, "cpu"
    )
    assert found.shape == (2, *LATENT)
    assert torch.allclose(found, video.expand_as(found), atol=0.05)
    grid = solver_grid(schedule, 10).astype(np.float32)
    places = [round(10 * (steps - step) / steps) for step in range(steps)]
    assert perfect.asked == [float(grid[place]) for place in places]
    assert places[0] == 10


# Settings


def test_what_a_distillation_cannot_be_is_said() -> None:
    with pytest.raises(ValidationError, match=r"rewards.video is needed, or weights.video: 0"):
        ConsistencyConfig(type="consistency", rewards={"image": {"type": OURS}})
    with pytest.raises(ValidationError, match="one of them must be above 0"):
        distilling(weights={"cd": 0, "real": 0, "image": 0, "video": 0})
    with pytest.raises(ValidationError, match="more than the 10 solver_steps"):
        distilling(sampling_steps=11)
    with pytest.raises(ValidationError, match="unknown reward"):
        distilling(rewards={"image": {"type": "clop"}})
    with pytest.raises(ValidationError, match="needs an id"):
        distilling(teacher={"path": "/models/x/{seed}"})
    lost = distilling(
        teacher={"path": "/nowhere"},
        rewards={"image": {"type": "clip", "path": "/no"}, "video": {"type": OURS}},
    ).lost()
    assert lost == [
        "rewards.image.path: there is no folder '/no'",
        "teacher.path: there is no folder '/nowhere'",
    ]


def test_what_decides_a_distillation_is_in_its_identity() -> None:
    plain = distilling().identity()
    assert plain["rewards"]["image"]["code"]  # a user's class is known by its code
    for change in ({"guidance": 3}, {"huber": 0.1}, {"weights": {"image": 0, "video": 0}}):
        assert distilling(**change).identity() != plain
    one, other = (
        distilling(teacher={"path": f"/{n}/{{seed}}", "id": "stage-1"}).identity() for n in "ab"
    )
    assert one == other != plain


# Trials


class World:
    """Clips, and a small base that was trained on others."""

    def __init__(self, folder: Path) -> None:
        clip = {"frames": FRAMES, "size": SIDE}
        trusted = write_clips(folder / "trusted", 40, seed=7, **clip)
        self.train = write_clips(folder / "train", ROWS, seed=1, **clip)
        self.judged = write_clips(folder / "judged", 8, seed=2, **clip)
        self.base = folder / "base"
        self.base.mkdir()
        train = {
            "dataset": CLIPS,
            "samples": 32,
            "batch_size": 16,
            "frames": FRAMES,
            "size": (SIDE, SIDE),
        }
        T2vBase(VideoBaseConfig(build="tiny", train=train)).make(
            BaseTask({"clips": trusted.uri}, self.base, lambda p: Checkpoint(str(folder), p), 1, 0)
        )

    def config(self, **changes: Any) -> T2vModelConfig:
        settings = {
            "base": {"path": str(self.base)},
            "frames": FRAMES,
            "size": (SIDE, SIDE),
            "stride": 1,
            "prompt_tokens": 16,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "lora": {"rank": 4, "alpha": 4},
            "precision": "fp32",
            "frozen": "fp32",
            "objective": distilling(),
            **changes,
        }
        return T2vModelConfig(type="t2v", **settings)

    def start(
        self, folder: Path, keep: Callable[..., None] | None = None, **changes: Any
    ) -> Iterator[RungReport]:
        rows = np.arange(ROWS)
        suite = Suite(
            [DenoisingConfig(type="denoising")], [EvaluationSet.read("judged", self.judged.uri)]
        )
        task = TrialTask(
            seed=SEED,
            rows=rows,
            captions=rows,
            rungs=(8, 24),
            cpus=1,
            gpus=0,
            checkpoint=Checkpoint(str(folder), "trial"),
            group=Group(),
            evaluate=lambda model, samples=None: suite.run(model),
            keep=keep,
        )
        data = TrialData(self.train.uri, {"judged": self.judged.uri}, base=str(self.base))
        return T2v(self.config(**changes)).train(task, data)

    def run(self, folder: Path, *more: Any, **changes: Any) -> list[RungReport]:
        return list(self.start(folder, *more, **changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("t2v"))


def test_a_stage_is_kept_and_teaches_the_next(world: World, tmp_path: Path) -> None:
    kept = []

    def keep(fill: Callable[[Path], Mapping[str, Any]]) -> None:
        kept.append(fill)
        kept_model(Storage(str(tmp_path)), "models/one", SEED).write(fill)

    reports = world.run(tmp_path / "one", keep)
    assert len(kept) == 1  # at the end alone
    assert {"cd", "real", "reward_image", "reward_video"} < set(reports[-1].terms)
    assert not kept_model(Storage(str(tmp_path)), "models/one", SEED).broken()
    made = tmp_path / "models" / "one" / str(SEED)
    folder = AdapterFolder(path=f"{tmp_path}/models/one/{{seed}}", id="one")
    base = load_video_base(world.base, "cpu", half=False)
    teacher = taught(base, folder, SEED)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(twin(base.transformer), str(made))
    x, times = torch.randn(1, *LATENT), torch.tensor([500.0])
    prompts = Prompter(world.base, Wan, 16, "cpu")(["a red circle"])
    with torch.no_grad():
        outs = [base.adapter(m, x, times, prompts) for m in (teacher, theirs, base.transformer)]
    assert outs[0].equal(outs[1])
    assert not outs[0].equal(outs[2])
    second = world.run(
        tmp_path / "two", init=folder, objective=distilling(teacher=folder.model_dump())
    )
    assert second[-1].terms["cd"] != reports[-1].terms["cd"]
    with pytest.raises(BadInput, match=r"init.path: .*they do not fit the model.*rank 4"):
        world.run(tmp_path / "three", init=folder, lora={"rank": 2, "alpha": 4})
    with pytest.raises(BadInput, match=r"init.path: .*: trained with alpha 4, not 8"):
        world.run(tmp_path / "three", init=folder, lora={"rank": 4, "alpha": 8})
    with pytest.raises(BadInput, match="there is no folder with adapters"):
        world.run(tmp_path / "four", init=replace_path(folder, f"{tmp_path}/gone"))


def replace_path(folder: AdapterFolder, path: str) -> AdapterFolder:
    return folder.model_copy(update={"path": path})


def test_a_distillation_that_was_cut_off_goes_on(world: World, tmp_path: Path) -> None:
    plain = world.run(tmp_path / "plain")
    work = world.start(tmp_path / "cut")
    first = next(work)
    work.close()  # type: ignore[attr-defined]
    (second,) = world.run(tmp_path / "cut")
    for one, other in zip((first, second), plain, strict=True):
        assert (one.loss, one.terms, one.metrics) == (other.loss, other.terms, other.metrics)


def test_a_distilled_model_makes_videos_in_few_steps_and_of_its_own_noise(world: World) -> None:
    config = world.config()
    base = load_video_base(world.base, "cpu", half=False)
    schedule = schedule_of(base.scheduler, "logit_normal", 1.0)
    prompter = Prompter(world.base, Wan, 16, "cpu")
    latents = EvaluationLatents({}, SHAPE, base.codec)
    sampling = SamplingConfig(steps=3, guidance=2.0, frames=FRAMES, size=(SIDE, SIDE))
    wanted = [WantedVideo("a red circle moves left on white", number) for number in range(3)]
    made: dict[str, list[Any]] = {}
    for what, own in (("once", config), ("often", world.config(objective={"type": "denoise"}))):
        maker = VideoModel(base.transformer, base, own, schedule, latents, prompter, "cpu")
        made[what] = list(maker.videos(wanted, sampling))
        assert [one.shape for one in made[what]] == [(FRAMES, SIDE, SIDE, 3)] * 3
        (alone,) = maker.videos(wanted[1:2], sampling)
        assert np.abs(alone.astype(int) - made[what][1].astype(int)).max() <= 1
        with pytest.raises(BadInput, match=r"evaluation.metrics: sampling: frames: 4 is not"):
            maker.made(sampling.model_copy(update={"frames": 4}), wanted)
    assert not np.array_equal(made["once"][0], made["often"][0])
    assert not np.array_equal(made["once"][0], made["once"][1])


def test_workers_make_the_videos_that_one_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counts:
        cpus, gpus = 2.0, 1.0

        def made(self, sampling: Any, wanted: Sequence[WantedVideo]) -> list[int]:
            return [one.number for one in wanted]

    def shared(group: Group, model: Any, job: Any) -> list[Any]:
        method, given, items = job
        return [getattr(model, method)(*given, items[rank::2]) for rank in range(2)]

    monkeypatch.setattr(answering, "_share", shared)
    together = answering.Together(Group(0, 2), Counts())
    assert isinstance(together, VideoMaker)
    wanted = [WantedVideo("a", number) for number in range(5)]
    assert together.videos(wanted, SamplingConfig()) == list(range(5))
    assert (together.cpus, together.gpus) == (2.0, 1.0)


def test_distilling_costs_three_more_passes(world: World) -> None:
    plain = T2v(world.config(objective={"type": "denoise"})).flops_per_sample()
    guided = T2v(world.config()).flops_per_sample()
    unguided = T2v(world.config(objective=distilling(guidance=0))).flops_per_sample()
    assert plain < unguided < guided
    assert (guided - plain) == pytest.approx(1.5 * (unguided - plain))


def test_only_adapters_are_distilled(world: World) -> None:
    with pytest.raises(ValidationError, match="a student is distilled into adapters"):
        world.config(train="full")
    assert T2v(world.config()).keeps()
    assert not T2v(world.config(train="full", objective={"type": "denoise"})).keeps()
    plain = T2v(world.config(objective={"type": "denoise"})).identity()
    assert "objective" not in plain  # trials of before are known as before
    assert "init" not in plain


def test_what_is_no_folder_of_adapters_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no adapters as peft writes them"):
        Adapters.read(tmp_path, "here")
    weights = {"blocks.0.attn1.to_q.lora_A.default.weight": torch.zeros(2, 4)}
    Adapters(2, 2.0, ("to_q",), weights).write(tmp_path)
    found = Adapters.read(tmp_path, "here")
    assert (found.rank, found.alpha, found.targets) == (2, 2.0, ("to_q",))
    assert list(found.weights) == list(weights)
    config = tmp_path / "adapter_config.json"
    plain = config.read_text()
    for other in ({"use_rslora": True}, {"alpha_pattern": {"to_q": 4}}):
        config.write_text(json.dumps({**json.loads(plain), **other}))
        with pytest.raises(BadInput, match=f"{next(iter(other))} would be taken for others"):
            Adapters.read(tmp_path, "here")
    config.write_text(plain.replace('"LORA"', '"IA3"'))
    with pytest.raises(BadInput, match="adapters of low rank on named linear layers"):
        Adapters.read(tmp_path, "here")
