"""Clips become latents, stored or not; denoising is learnt the same however batches are cut."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from t2v_world import TEXT, TOKENS, moving, randomised, wan, write_clips

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.trials.loop import AdditiveConfig, AdditiveTraining
from djsandbox_ray.trials.lora import put_adapters
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.t2v.codec import Ratios
from djsandbox_ray.trials.t2v.denoisers import Prompts, Surroundings, Wan
from djsandbox_ray.trials.t2v.latents import StoredLatents, write_latents
from djsandbox_ray.trials.t2v.objective import ComputedLatents, Denoising, PromptBook
from djsandbox_ray.trials.t2v.patches import PatchCodec
from djsandbox_ray.trials.t2v.schedule import Flow, Schedule, Vp
from djsandbox_ray.trials.t2v.training_clips import Clips, middle, random_window

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, SEED = 24, 3
SHAPE = ClipShape(5, (16, 16))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SampleTable:
    return write_clips(tmp_path_factory.mktemp("clips"), ROWS, frames=9, size=16)


@pytest.fixture(scope="module")
def codec() -> PatchCodec:
    return PatchCodec.fitted(moving(60, seed=9, size=16))[0]


@pytest.fixture(scope="module")
def stored(table: SampleTable, codec: PatchCodec, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("latents") / "x.lance")
    rows = np.arange(1, ROWS)
    write_latents(uri, Clips(table.uri, SHAPE, rows), codec)
    return uri


# Clips and windows


def test_windows_lie_where_they_are_said_to() -> None:
    assert [middle(count, 5) for count in (5, 6, 9, 100)] == [0, 0, 2, 47]
    starts = [random_window(SEED, row)(9, 5) for row in range(400)]
    assert set(starts) == set(range(5))
    assert starts == [random_window(SEED, row)(9, 5) for row in range(400)]
    assert starts != [random_window(SEED + 1, row)(9, 5) for row in range(400)]


def test_clips_have_the_videos_of_rows_and_the_captions_of_others(table: SampleTable) -> None:
    rows, texts = np.array([7, 3, 7]), np.array([1, 2, 3])
    clips = Clips(table.uri, SHAPE, rows, texts)
    clips.check()
    captions = table.column("text").to_pylist()
    assert clips.captions() == [captions[row] for row in texts]
    found = clips.take(np.array([0, 1, 2]))
    assert found.shape == (3, 5, 16, 16, 3)
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
    assert (found[0][0] != found[0][-1]).any()
    still = Clips(table.uri, SHAPE, rows, still=True).take(np.array([0]))
    assert np.array_equal(still[0], np.repeat(found[0][:1], 5, axis=0))
    anywhere = [
        Clips(table.uri, SHAPE, rows, seed=seed).take(np.array([1]))[0] for seed in range(6)
    ]
    assert len({clip.tobytes() for clip in anywhere}) > 1


def test_what_is_no_clip_is_said(table: SampleTable) -> None:
    long = Clips(table.uri, ClipShape(9, (16, 16), stride=2), np.array([4]))
    with pytest.raises(BadInput, match=r"row 4: the video has 9 frames, a clip of 9 .* needs 17"):
        long.take(np.array([0]))


# Latents


def test_stored_latents_are_the_computed_ones(
    table: SampleTable, codec: PatchCodec, tmp_path: Path
) -> None:
    rows = np.arange(ROWS)
    clips = Clips(table.uri, SHAPE, rows)
    uri = str(tmp_path / "one.lance")
    write_latents(uri, clips, codec)
    some = np.array([5, 0, 23, 5])
    found = StoredLatents(uri, rows)
    assert found.shape == codec.ratios.shape(5, 16, 16) == (12, 2, 4, 4)
    computed = ComputedLatents(clips, codec)
    assert len(found) == len(computed) == ROWS
    assert found.take(some).dtype == np.float16
    assert np.array_equal(found.take(some), computed.take(some))
    assert np.array_equal(found.take(some), pickle.loads(pickle.dumps(found)).take(some))
    drawn = StoredLatents(uri, np.array([9, 2]))
    assert np.array_equal(drawn.take(np.array([1, 0])), computed.take(np.array([2, 9])))


def test_latents_that_are_not_there_are_said(
    stored: str, table: SampleTable, codec: PatchCodec, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="2 of 3 keys are not there, such as 0"):
        StoredLatents(stored, np.array([0, 5, 99])).take(np.arange(3))
    with pytest.raises(SandboxError, match="rising order"):
        write_latents(str(tmp_path / "a"), Clips(table.uri, SHAPE, np.array([2, 1])), codec)
    with pytest.raises(BadInput, match="no clips to be encoded"):
        write_latents(str(tmp_path / "b"), Clips(table.uri, SHAPE, np.array([], int)), codec)
    even = Clips(table.uri, ClipShape(4, (16, 16)), np.array([1]))
    with pytest.raises(BadInput, match="frames: 4 is not a multiple"):
        write_latents(str(tmp_path / "c"), even, codec)


# The objective


def book(texts: list[str]) -> PromptBook:
    """Return prompts whose embeddings hang on the text alone."""

    def encode(some: list[str]) -> Prompts:
        made = [
            torch.randn(
                TOKENS, TEXT, generator=torch.Generator().manual_seed(len(t) * 97 + sum(t.encode()))
            )
            for t in some
        ]
        return Prompts(torch.stack(made))

    return PromptBook(texts, encode)


def transformer() -> Any:
    return randomised(wan(channels=12, layers=1))


def objective(
    stored: str, table: SampleTable, schedule: Schedule | None = None, drop: float = 0.1
) -> Denoising:
    rows = np.arange(1, ROWS)
    model = transformer()
    model.requires_grad_(False)
    put_adapters(model, 4, 4.0, Wan.TARGETS, SEED, "lora.targets")
    captions = Clips(table.uri, SHAPE, rows).captions()
    return Denoising(
        model,
        Wan(model.config, Surroundings(Ratios(4, 4, 12))),
        schedule or Flow(),
        StoredLatents(stored, rows),
        captions,
        book(captions),
        SEED,
        drop,
        "cpu",
    )


def trained(work: Denoising, **settings: Any) -> tuple[dict[str, np.ndarray], list[float]]:
    config = AdditiveConfig(batch_size=10, learning_rate=1e-2, weight_decay=0.0, **settings)
    training = AdditiveTraining(work, ROWS - 1, config, SEED, "cpu")
    losses = [state.loss for state in training.run([20, 47])]
    return {name: value.numpy() for name, value in training.weights().items()}, losses


def test_noise_is_that_of_the_sample_and_not_of_the_batch(stored: str, table: SampleTable) -> None:
    work = objective(stored, table)
    whole = work.collate(np.arange(6), np.arange(100, 106))
    part = work.collate(np.array([4]), np.array([104]))
    for name in ("latents", "noise", "times"):
        assert getattr(whole, name)[4:5].equal(getattr(part, name)), name
    assert whole.prompts.embeddings[4:5].equal(part.prompts.embeddings)
    assert not whole.noise[0].equal(whole.noise[1])
    assert float(whole.noise.std()) == pytest.approx(1, abs=0.05)
    assert work.weight(whole) == 6
    parts = work.split(whole, 4)
    assert [len(one) for one in parts] == [4, 2]
    losses = [float(work.loss(work.model, one)[0].detach()) for one in (whole, *parts)]
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-5)


def test_captions_are_left_out_as_often_as_is_said(stored: str, table: SampleTable) -> None:
    work = objective(stored, table, drop=0.25)
    empty = work._book.take(np.array([0])).embeddings[0]
    batch = work.collate(np.zeros(400, np.int64), np.arange(400))
    left_out = [one.equal(empty) for one in batch.prompts.embeddings]
    assert np.mean(left_out) == pytest.approx(0.25, abs=0.06)
    without = objective(stored, table, drop=0.0).collate(np.zeros(50, np.int64), np.arange(50))
    assert not any(one.equal(empty) for one in without.prompts.embeddings)


@pytest.mark.parametrize("micro", [1, 3, 10])
def test_micro_batches_change_nothing(micro: int, stored: str, table: SampleTable) -> None:
    weights, losses = trained(objective(stored, table))
    found, told = trained(objective(stored, table), micro_batch=micro)
    assert weights
    assert all(np.abs(found[name] - value).max() < 1e-5 for name, value in weights.items())
    assert told == pytest.approx(losses, rel=1e-5)


def test_what_is_learnt_makes_the_loss_less(stored: str, table: SampleTable) -> None:
    work = objective(stored, table, drop=0.0)
    work.model.requires_grad_(True)
    config = AdditiveConfig(batch_size=16, learning_rate=3e-3, weight_decay=0.0)
    training = AdditiveTraining(work, ROWS - 1, config, SEED, "cpu")
    losses = [state.loss for state in training.run([160, 640])]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("schedule", [Flow(), Vp(), Vp("v_prediction", snr_shift=3.0)])
def test_the_loss_is_the_mean_squared_error(
    schedule: Schedule, stored: str, table: SampleTable
) -> None:
    """By numpy, of a denoiser that foretells nothing but zeros."""
    work = objective(stored, table, schedule)
    batch = work.collate(np.arange(5), np.arange(5))
    loss, terms = work.loss(lambda **given: (torch.zeros_like(given["hidden_states"]),), batch)
    assert terms == {}
    expected = 0.0
    for place in range(5):
        random = noise(SEED, place)
        random.random()
        time = schedule.draw(random)
        drawn = random.standard_normal(batch.latents.shape[1:], np.float32)
        x0 = batch.latents[place].numpy()
        target = schedule.target(x0[None], drawn[None], np.array([time]))
        expected += float((target**2).mean())
    assert float(loss) == pytest.approx(expected, rel=1e-5)
