"""A small base is trained once; trials adapt it to their clips, and evaluators see it denoise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from recorded import check
from t2v_world import ALL, diffusers, write_clips

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import DenoisingConfig, PromptMatchConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.video.motion import MotionConfig
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials import answering
from djsandbox_ray.trials.base import BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.config import TrialsConfig, misfits
from djsandbox_ray.trials.family import FAMILIES, TrialData, TrialTask
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import adamw
from djsandbox_ray.trials.model_folders import folder_content
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.t2v.base import T2vBase, VideoBaseConfig
from djsandbox_ray.trials.t2v.base_folder import Prompter, load_video_base
from djsandbox_ray.trials.t2v.codec import DiffusersCodec, as_pixels
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.denoisers import Wan
from djsandbox_ray.trials.t2v.encoding import LATENTS, PROMPTS
from djsandbox_ray.trials.t2v.family import VERSION, T2v, adapted
from djsandbox_ray.trials.t2v.flops import denoising_flops, without_storage
from djsandbox_ray.trials.t2v.sampler import sampled, videos
from djsandbox_ray.trials.t2v.schedule import schedule_of
from djsandbox_ray.trials.t2v.small import VERSION as BASE_VERSION

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, SIDE, ROWS = 5, 16, 30
CLIPS = {"type": "clips", "samples": 40, "frames": FRAMES, "size": SIDE}
CLIP = {"frames": FRAMES, "size": [SIDE, SIDE]}


def tiny(**changes: Any) -> T2vBase:
    train = {"dataset": CLIPS, "samples": 64, "batch_size": 16, **CLIP, **changes}
    return T2vBase(VideoBaseConfig(build="tiny", train=train))


def make_base(
    table: SampleTable, folder: Path, checkpoint: type[Checkpoint] = Checkpoint
) -> dict[str, float]:
    (folder / "base").mkdir(parents=True, exist_ok=True)
    task = BaseTask(
        {"clips": table.uri},
        folder / "base",
        lambda part: checkpoint(str(folder), part),
        cpus=1,
        gpus=0,
    )
    return tiny().make(task)


class World:
    """Tables, and a small base that was trained on one of them.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        clip = {"frames": FRAMES, "size": SIDE}
        self.trusted = write_clips(folder / "trusted", 40, seed=7, **clip)
        self.train = write_clips(folder / "train", ROWS, seed=1, **clip)
        self.judged = write_clips(folder / "judged", 12, seed=2, **clip)
        self.found = make_base(self.trusted, folder)
        self.base = folder / "base"

    def config(self, **changes: Any) -> T2vModelConfig:
        settings = {
            "base": {"path": str(self.base)},
            **CLIP,
            "stride": 1,
            "prompt_tokens": 16,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "lora": {"rank": 4, "alpha": 4},
            "precision": "fp32",
            **changes,
        }
        return T2vModelConfig(type="t2v", **settings)

    def data(self) -> TrialData:
        return TrialData(self.train.uri, {"judged": self.judged.uri}, base=str(self.base))

    def suite(self) -> Suite:
        data = EvaluationSet.read("judged", self.judged.uri)
        configs = [DenoisingConfig(type="denoising"), PromptMatchConfig(type="prompt_match")]
        return Suite(configs, [data, data])

    def task(self, folder: Path, **changes: Any) -> TrialTask:
        rows = np.arange(ROWS, dtype=np.int64)
        suite = self.suite()
        settings: dict[str, Any] = {
            "seed": 3,
            "rows": rows,
            "captions": rows,
            "rungs": (20, 48),
            "cpus": 1,
            "gpus": 0,
            "checkpoint": Checkpoint(str(folder), "trial"),
            "group": Group(),
            "evaluate": lambda model, samples=None: suite.run(model),
        }
        return TrialTask(**{**settings, **changes})

    def run(
        self, folder: Path, config: dict[str, Any] | None = None, **changes: Any
    ) -> list[RungReport]:
        return list(
            T2v(self.config(**config or {})).train(self.task(folder, **changes), self.data())
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("t2v"))


@pytest.fixture(scope="module")
def plain(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[RungReport]:
    return world.run(tmp_path_factory.mktemp("plain"))


# The base


class Cut(Checkpoint):
    """The checkpoint of a training whose process is killed at its third one."""

    def save(self, report: RungReport, write: Callable[[Path], None]) -> None:
        if len(self.reports()) == 2:
            raise KeyboardInterrupt
        super().save(report, write)


def test_a_small_base_is_made_and_goes_on_where_it_was_cut_off(
    world: World, tmp_path: Path
) -> None:
    assert set(world.found) == {"variance_kept", "loss"}
    assert world.found["variance_kept"] > 0.9
    assert 0.5 < world.found["loss"] < 3
    with pytest.raises(KeyboardInterrupt):
        make_base(world.trusted, tmp_path, Cut)
    for part in (tmp_path / "base").rglob("*"):
        if part.is_file():
            part.unlink()
    (tmp_path / "base" / "vae").rmdir()
    assert make_base(world.trusted, tmp_path) == world.found
    one, other = (load_video_base(at, "cpu", half=False) for at in (world.base, tmp_path / "base"))
    weights = other.transformer.state_dict()
    assert all(value.equal(weights[n]) for n, value in one.transformer.state_dict().items())
    assert sum(value.numel() for value in weights.values()) == pytest.approx(149_000, rel=0.05)


def test_versions_stand_for_the_numbers_of_a_base_and_of_a_training(
    world: World, plain: list[RungReport]
) -> None:
    check("t2v base", f"{BASE_VERSION}.{LOOP_VERSION}", "trials/t2v/small.py", world.found)
    found = {
        "losses": [report.loss for report in plain],
        **{name: [one.metrics[name] for one in plain] for name in plain[0].metrics},
    }
    places = "trials/t2v/family.py or trials/loop.py"
    check("t2v", f"{VERSION}.{LOOP_VERSION}", places, found)


def test_a_base_is_known_by_what_it_is_made_of(world: World, tmp_path: Path) -> None:
    assert tiny().identity() == tiny().identity() != tiny(seed=1).identity()
    assert set(tiny().sources()) == {"clips"}
    assert tiny().samples() == 64
    assert tiny().flops() > 64 * 1e6
    copied = T2vBase(VideoBaseConfig(path=str(world.base)))
    assert copied.ratios() == tiny().ratios()
    assert copied.adapter() is tiny().adapter() is Wan
    assert copied.flops() == copied.samples() == 0
    copied.make(BaseTask({}, tmp_path, lambda part: Checkpoint(str(tmp_path), part), 1, 0))
    content = folder_content(str(world.base), nested=True)
    assert folder_content(str(tmp_path), nested=True) == content == copied.identity()["path"]
    assert "transformer/diffusion_pytorch_model.safetensors" in content
    assert "vae/patches.safetensors" in content


def test_where_a_base_comes_from_is_said_once() -> None:
    for wrong in ({}, {"path": "x", "build": "tiny"}, {"build": "tiny"}, {"train": {}}):
        with pytest.raises(ValidationError):
            VideoBaseConfig(**wrong)
    with pytest.raises(ValidationError, match="unknown base 'huge'"):
        VideoBaseConfig(build="huge", train={"dataset": CLIPS})
    with pytest.raises(ValidationError, match="videos are needed, not content: pairs"):
        VideoBaseConfig(build="tiny", train={"dataset": {"type": "shapes", "samples": 9}})


ARCHITECTURE = {
    "transformer": {"_class_name": "WanTransformer3DModel", "num_layers": 2, "text_dim": 64},
    "vae": {"_class_name": "AutoencoderKLWan", "z_dim": 16},
}


def test_operations_are_counted_before_the_folder_is_there(tmp_path: Path) -> None:
    away = {"path": str(tmp_path / "wan"), "architecture": ARCHITECTURE}
    settings = {"base": away, "frames": 17, "size": [64, 64], "prompt_tokens": 32}
    family = T2v(T2vModelConfig(type="t2v", **settings))
    assert family.flops_per_sample() > 1e9
    assert family.stored_bytes() == {LATENTS: 2 * 16 * 5 * 8 * 8, PROMPTS: 32 * 64 * 4}
    with pytest.raises(ValidationError, match="frames: 16 is not a multiple of 4 and 1 more"):
        T2vModelConfig(type="t2v", **{**settings, "frames": 16})
    # Where it is, it says itself what it is.
    (tmp_path / "wan").mkdir()
    (tmp_path / "wan" / "model_index.json").write_text("{}")
    with pytest.raises(BadInput, match=r"there is no vae/config\.json"):
        family.flops_per_sample()


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("transformer", {"_class_name": "UNet"}, "unknown video transformer 'UNet'"),
        ("transformer", {"_class_name": 3}, "_class_name is missing"),
        ("vae", {"_class_name": "AutoencoderKL"}, "AutoencoderKL is not supported"),
        ("vae", {"_class_name": "AutoencoderKLMagvit"}, "block_out_channels' is missing"),
    ],
)
def test_an_architecture_that_is_none_is_said(
    part: str, changes: dict[str, Any], said: str
) -> None:
    written = {**ARCHITECTURE, part: changes}
    with pytest.raises(ValidationError, match=said):
        VideoBaseConfig(path="/nowhere", architecture=written)
    with pytest.raises(ValidationError, match="architecture is for folders"):
        VideoBaseConfig(build="tiny", train={"dataset": CLIPS}, architecture=ARCHITECTURE)
    wrong = {**ARCHITECTURE["transformer"], "num_layers": "many"}
    with pytest.raises(BadInput, match="no WanTransformer3DModel is made of its settings"):
        without_storage(wrong)


def test_prompts_are_those_of_the_pipeline(world: World) -> None:
    prompter = Prompter(world.base, Wan, 16, "cpu")
    texts = ["a red circle moves left on white", "", "a blue circle moves up on gray"]
    made = prompter([*texts, texts[0]])
    assert made.embeddings.shape == (4, 16, 64)
    assert made.embeddings[0].equal(made.embeddings[3])
    assert not made.embeddings[0].equal(made.embeddings[2])
    assert prompter(texts[2:]).embeddings[0].equal(made.embeddings[2])
    again = prompter(["a green square moves down on black", texts[0]])
    assert again.embeddings[1].equal(made.embeddings[0])
    pipeline = diffusers.WanPipeline.from_pretrained(world.base, vae=None)
    (own,), _ = pipeline.encode_prompt(
        texts[:1], do_classifier_free_guidance=False, max_sequence_length=16
    )
    assert torch.allclose(own, made.embeddings[0], atol=1e-6)
    long = " ".join(texts[::2] * 1000)
    (own,), _ = pipeline.encode_prompt(
        [long], do_classifier_free_guidance=False, max_sequence_length=16
    )
    assert torch.allclose(own, prompter([long]).embeddings[0], atol=1e-6)
    with pytest.raises(BadInput, match="no WanPipeline can be loaded from it"):
        Prompter(world.base / "vae", Wan, 16, "cpu")(texts)


# Settings


def test_frames_that_the_codec_has_no_latents_of_are_refused(world: World) -> None:
    with pytest.raises(ValidationError, match="frames: 16 is not a multiple of 4 and 1 more"):
        world.config(frames=16)
    with pytest.raises(ValidationError, match="size: 30 pixels are no multiple of 4"):
        world.config(size=(32, 30))
    away = world.config(base={"path": "/nowhere/model"}, frames=16)
    assert T2v(away).lost() == ["base.path: there is no folder '/nowhere/model'"]
    assert T2v(world.config()).lost() == []


def test_what_decides_a_result_is_in_the_identity(world: World) -> None:
    plain = T2v(world.config()).identity()
    assert T2v(world.config(micro_batch=2, evaluation_batch=3)).identity() == plain
    for change in ({"stride": 2}, {"caption_drop": 0.2}, {"lora": {"rank": 2}}, {"eps": 1e-6}):
        assert T2v(world.config(**change)).identity() != plain
    assert T2v(world.config(precision="auto")).resolved(0).config.precision == "fp32"
    optimizer = adamw(torch.nn.Linear(2, 2), world.config())
    assert optimizer.param_groups[0]["eps"] == 1e-10
    assert FAMILIES.get("t2v") is T2v
    assert "peft" in T2v(world.config()).numerics(0)
    assert "peft" not in T2v(world.config(train="full")).numerics(0)


def test_the_self_tests_need_metrics_that_see_them(world: World) -> None:
    def found(*types: str) -> list[str]:
        kinds = {"denoising": DenoisingConfig, "prompt_match": PromptMatchConfig}
        trials = TrialsConfig(model=world.config(), budget=48)
        return misfits(trials, [kinds[one](type=one) for one in types], self_tests=True)

    assert found("denoising", "prompt_match") == []
    (without,) = found("denoising")
    assert "captions were spoilt" in without
    assert "prompt_match" in without
    assert "frames were spoilt" in found("prompt_match")[0]


def test_the_transformer_has_to_read_the_latents(world: World) -> None:
    T2v(world.config()).prepare(world.data())
    with pytest.raises(BadInput, match="a height of 5, which the transformer reads by 2"):
        T2v(world.config(size=(20, 16))).prepare(world.data())


@pytest.mark.parametrize("name", ALL)
def test_operations_are_counted_without_storage(name: str) -> None:
    make, make_vae = ALL[name]
    transformer, ratios = make(), DiffusersCodec(make_vae().eval()).ratios
    settings = {**transformer.config, "_class_name": type(transformer).__name__}
    shape = ratios.shape(9, 32, 32)
    whole, passing = (
        denoising_flops(settings, ratios, shape, 8, frozen) for frozen in (False, True)
    )
    assert 1.2 < whole / passing < 1.6  # of attention itself, nothing is saved
    more = denoising_flops(settings, ratios, ratios.shape(17, 32, 32), 8, frozen=True)
    assert more > 1.2 * passing


def test_what_judging_takes_is_counted(world: World) -> None:
    data = EvaluationSet.read("judged", world.judged.uri)
    sampling = {"steps": 3, "guidance": 2.0, "frames": FRAMES, "size": [SIDE, SIDE]}
    some: list[Any] = [
        DenoisingConfig(type="denoising", limit=3),
        PromptMatchConfig(type="prompt_match", times=[0.5], limit=4),
        *(MotionConfig(type="motion", name=n, videos=4, sampling=sampling) for n in ("a", "b")),
        MotionConfig(type="motion", videos=4, sampling={**sampling, "guidance": 1.0}),
    ]
    suite, family = Suite(some, [data] * len(some)), T2v(world.config())
    settings, ratios = family.base().transformer(), family.base().ratios()
    shape = ratios.shape(FRAMES, SIDE, SIDE)
    one = denoising_flops(settings, ratios, shape, 16, True, backward=False)
    denoised, made = 3 * 4 + 2 * 4, 4 * 3 * 2 + 4 * 3
    assert family.evaluation_flops(suite) == pytest.approx((denoised + made) * one)
    what = {"weights": {"cd": 1, "image": 0, "video": 0}, "sampling_steps": 2}
    distilled = T2v(world.config(objective={"type": "consistency", **what}))
    assert distilled.evaluation_flops(suite) == pytest.approx((denoised + 2 * 4 * 2) * one)


# Trials


def test_a_trial_adapts_the_base_and_is_judged(world: World, plain: list[RungReport]) -> None:
    assert [report.samples for report in plain] == [24, 48]
    for report in plain:
        assert set(report.metrics) == {"denoising/loss", "prompt_match/accuracy"}
        assert 0 <= report.metrics["prompt_match/accuracy"] <= 1
        assert report.terms["gradient_norm"] > 0
    assert plain[0].metrics["denoising/loss"] != plain[1].metrics["denoising/loss"]


def test_a_trial_that_was_cut_off_goes_on(
    world: World, plain: list[RungReport], tmp_path: Path
) -> None:
    work = T2v(world.config()).train(world.task(tmp_path), world.data())
    first = next(work)
    work.close()
    held = next(tmp_path.rglob("weights.pt"))
    names = torch.load(held, weights_only=True)["model"]
    assert names
    assert all(".lora_" in name for name in names)
    (second,) = world.run(tmp_path)
    for one, other in zip((first, second), plain, strict=True):
        assert one.loss == other.loss
        assert one.metrics == other.metrics


def test_the_base_stays_as_it_is(world: World, plain: list[RungReport]) -> None:
    base = load_video_base(world.base, "cpu", half=False)
    before = {name: value.clone() for name, value in base.transformer.state_dict().items()}
    for train in ("lora", "full"):
        model = adapted(base, world.config(train=train), seed=0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(1.0)
    after = base.transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in base.transformer.parameters())
    with pytest.raises(BadInput, match=r"trials\.model\.lora\.targets: the model has no linear"):
        adapted(base, world.config(lora={"targets": ["to_x"]}), seed=0)


def drawn(count: int) -> torch.Tensor:
    """Return the noise of some videos."""
    return torch.randn(count, 12, 2, 4, 4, generator=torch.Generator().manual_seed(count))


def test_every_pool_begins_as_the_base(world: World) -> None:
    base = load_video_base(world.base, "cpu", half=False)
    model = adapted(base, world.config(), seed=0)
    noisy, times = drawn(1), torch.tensor([500.0])
    prompts = Prompter(world.base, Wan, 16, "cpu")(["a red circle"])
    with torch.no_grad():
        outs = [base.adapter(one, noisy, times, prompts) for one in (base.transformer, model)]
    assert outs[0].equal(outs[1])


def test_spoilt_samples_change_what_is_learnt(
    world: World, plain: list[RungReport], tmp_path: Path
) -> None:
    still = world.run(tmp_path / "still", spoil="frames")
    captions = np.roll(np.arange(ROWS), 1)
    shuffled = world.run(tmp_path / "shuffled", captions=captions, spoil="captions")
    losses = [reports[-1].loss for reports in (plain, still, shuffled)]
    assert len(set(losses)) == 3


def test_all_of_a_transformer_can_be_trained(world: World, tmp_path: Path) -> None:
    settings = {"train": "full", "learning_rate": 1e-3, "window": "random", "micro_batch": 3}
    reports = world.run(tmp_path, settings, rungs=(16,))
    assert [report.samples for report in reports] == [16]
    assert np.isfinite(reports[0].metrics["denoising/loss"])


def test_workers_denoise_what_one_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows:
        def losses(self, data: Any, times: Any, seed: int, clips: Any) -> np.ndarray:
            return np.array([row + seed for row, _ in clips], np.float32)

    def shared(group: Group, model: Any, job: Any) -> list[Any]:
        method, given, items = job
        return [getattr(model, method)(*given, items[rank::2]) for rank in range(2)]

    monkeypatch.setattr(answering, "_share", shared)
    together = answering.Together(Group(0, 2), Rows())
    clips = [(row, "") for row in range(7)]
    data = EvaluationSet("judged", world.judged.uri, 12)
    assert together.losses(data, [0.5], 3, clips).tolist() == list(range(3, 10))


def test_a_set_that_a_trial_was_not_given_is_said(world: World, tmp_path: Path) -> None:
    data = TrialData(world.train.uri, {}, base=str(world.base))
    with pytest.raises(SandboxError, match="not given the evaluation set judged"):
        list(T2v(world.config()).train(world.task(tmp_path, rungs=(8,)), data))


# Sampling


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_videos_are_sampled_as_the_pipeline_does_it(world: World, guidance: float) -> None:
    base = load_video_base(world.base, "cpu", half=False)
    schedule = schedule_of(base.scheduler, "logit_normal", 1.0)
    prompter = Prompter(world.base, Wan, 16, "cpu")
    texts = ["a red circle moves left on white", "a blue square moves up on gray"]
    prompts, nothing = prompter(texts), prompter([""])
    start = drawn(2)
    ours = sampled(base.transformer, base.adapter, schedule, start, prompts, nothing, 5, guidance)
    pipeline = diffusers.WanPipeline.from_pretrained(world.base, vae=None)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt_embeds=prompts.embeddings,
        negative_prompt_embeds=nothing.embeddings.repeat(2, 1, 1),
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=5,
        guidance_scale=guidance,
        latents=start,
        output_type="latent",
    ).frames
    assert torch.allclose(ours, theirs, atol=1e-4)
    frames = videos(base.codec, ours, batch=1)
    assert frames.shape == (2, FRAMES, SIDE, SIDE, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, as_pixels(base.codec.decode(ours)).numpy())
