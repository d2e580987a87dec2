from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trial_world import World

from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.trials.clip import samples
from djsandbox_ray.trials.clip.arch import build_model, load_arch
from djsandbox_ray.trials.clip.samples import Packed, Streamed, preprocess, share_samples
from djsandbox_ray.trials.clip.training import (
    DeviceArrays,
    Training,
    TrainingConfig,
    normalise,
    part,
)
from djsandbox_ray.trials.family import Diverged
from djsandbox_ray.trials.loop import batch_positions, resolved, schedule
from djsandbox_ray.trials.strategies.strategy import Group


@given(rows=st.integers(1, 50), budget=st.integers(2, 300), size=st.integers(2, 40))
def test_batches_see_every_row_equally_often(rows: int, budget: int, size: int) -> None:
    batches = list(batch_positions(rows, budget, size, seed=3))
    order = np.concatenate(batches)
    assert len(order) == budget
    counts = np.bincount(order, minlength=rows)
    assert counts.max() - counts.min() <= 1
    assert all(2 <= len(batch) <= size + 1 for batch in batches)


@given(rows=st.integers(1, 60), size=st.integers(1, 7))
def test_parts_are_equally_long_and_together_the_batch(rows: int, size: int) -> None:
    batch = np.random.default_rng(rows).permutation(rows)
    parts = [part(batch, Group(rank, size)) for rank in range(size)]
    assert len({len(mine) for mine in parts}) == 1
    joined = np.concatenate(parts)
    assert np.array_equal(joined[:rows], batch)
    assert len(joined) < rows + size


def test_order_is_paired_by_seed() -> None:
    def order(seed: int) -> list[int]:
        return np.concatenate(list(batch_positions(100, 250, 32, seed))).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_schedule_warms_up_and_falls_to_nothing() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.001
    assert schedule(0, 1, 0.0) == 1


def test_normalise_is_the_standard_one() -> None:
    from torchvision.transforms.functional import normalize

    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    torch.testing.assert_close(normalise(pixels), normalize(pixels / 255, mean, std))


def _arrays(rows: int = 64, seed: int = 0) -> DeviceArrays:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
    tokens = rng.integers(1, 4500, (rows, 16), dtype=np.int32)
    return DeviceArrays(images, tokens, seed, "cpu")


def test_training_learns_and_reports_exactly_at_the_rungs() -> None:
    model = build_model(load_arch("tiny"), 0)
    config = TrainingConfig(batch_size=32, learning_rate=1e-3)
    states = list(Training(model, _arrays(), config, "cpu").run([320, 1000, 3000]))
    assert [state.samples for state in states] == [320, 1024, 3000]
    assert states[-1].loss < 0.5 * states[0].loss
    assert states[0].loss < math.log(32) * 1.5


def test_same_seed_same_numbers() -> None:
    def run(seed: int) -> list[float]:
        model = build_model(load_arch("tiny"), seed)
        config = TrainingConfig(batch_size=32)
        return [s.loss for s in Training(model, _arrays(seed=seed), config, "cpu").run([128, 256])]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_rungs_in_one_batch_are_one_report() -> None:
    model = build_model(load_arch("tiny"), 0)
    states = Training(model, _arrays(), TrainingConfig(batch_size=32), "cpu").run([1, 2, 64])
    assert [state.samples for state in states] == [32, 64]


def test_a_loss_that_is_not_finite_ends_the_trial() -> None:
    model = build_model(load_arch("tiny"), 0)
    with torch.no_grad():
        model.visual.proj.fill_(math.nan)
    with pytest.raises(Diverged, match="the training loss is nan after 64 samples"):
        list(Training(model, _arrays(), TrainingConfig(batch_size=32), "cpu").run([64]))


def test_only_matrices_decay() -> None:
    model = build_model(load_arch("tiny"), 0)
    before = model.ln_final.weight.detach().clone()
    config = TrainingConfig(batch_size=32, learning_rate=1e-9, weight_decay=0.5)
    list(Training(model, _arrays(), config, "cpu").run([64]))
    torch.testing.assert_close(model.ln_final.weight.detach(), before, atol=1e-7, rtol=0)


def test_bf16_trains_too() -> None:
    model = build_model(load_arch("tiny"), 0)
    config = TrainingConfig(batch_size=32, precision="bf16")
    (state,) = Training(model, _arrays(), config, "cpu").run([64])
    assert math.isfinite(state.loss)


def test_auto_precision_depends_on_the_device_alone() -> None:
    auto = TrainingConfig()
    assert resolved(auto, gpus=0).precision == "fp32"
    assert resolved(auto, gpus=0.5).precision == "bf16"
    chosen = TrainingConfig(precision="fp32")
    assert resolved(chosen, gpus=1) is chosen


@pytest.mark.parametrize("rungs", [[64, 200], [1, 64, 65, 200]])
def test_a_training_goes_on_where_it_was_saved(tmp_path: Path, rungs: list[int]) -> None:
    def fresh() -> Training:
        config = TrainingConfig(batch_size=32, learning_rate=1e-3)
        return Training(build_model(load_arch("tiny"), 0), _arrays(), config, "cpu")

    whole = list(fresh().run(rungs))
    cut = fresh()
    states = []
    for state in cut.run(rungs):
        states.append(state)
        if state.samples == 64:
            break
    cut.save(tmp_path)
    again = fresh()
    assert again.load(tmp_path)
    assert states + list(again.run(rungs)) == whole
    assert list(again.run(rungs)) == [], "nothing is ahead"


def test_a_checkpoint_of_another_form_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(build_model(load_arch("tiny"), 0), _arrays(), TrainingConfig(), "cpu")
    progress = {"form": "ZeRO 3 on 2 workers", "steps": 3, "samples": 9}
    (tmp_path / "progress.json").write_text(json.dumps(progress))
    assert not training.load(tmp_path)
    assert "the trial begins anew" in caplog.text
    assert [state.samples for state in training.run([64])] == [64]


def _png(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "height"), [(32, 32), (100, 40), (40, 100), (5, 300), (1, 1)])
def test_every_shape_becomes_a_square(width: int, height: int) -> None:
    assert preprocess(_png(width, height), 32).shape == (32, 32, 3)


def test_the_right_size_is_left_alone() -> None:
    data = _png(32, 32)
    assert np.array_equal(preprocess(data, 32), np.asarray(Image.open(io.BytesIO(data))))


def test_packed_and_streamed_give_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, uri = load_arch("tiny"), world.uri(world.train)
    monkeypatch.setattr(samples, "_BLOCK_ROWS", 64)  # more than one block
    packed, held = share_samples(uri, arch, NodeKind())
    streamed = Streamed(uri, arch, threads=2)
    assert isinstance(packed, Packed)
    assert held > 0
    assert len(packed.image_blocks) == 10
    rows = np.random.default_rng(0).permutation(world.train.rows)[:300]
    assert np.array_equal(packed.images(rows), streamed.images(rows))
    assert np.array_equal(packed.tokens(rows), streamed.tokens(rows))


def test_a_table_too_large_for_the_store_is_streamed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_STORE_SHARE", 1e-9)
    found, held = share_samples(world.uri(world.train), load_arch("tiny"), NodeKind())
    assert isinstance(found, Streamed)
    assert held == 0
