"""An additive loss is trained to the same weights however its batches are cut and shared out."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentences import (
    CASES,
    CONFIG,
    MICRO,
    ROWS,
    RUNGS,
    SEED,
    MeanOfMeans,
    Sentences,
    read,
    resumed,
    small_llama,
    trained,
    training,
)
from two_workers import run_together

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.trials.family import Diverged
from djsandbox_ray.trials.loader import Loader
from djsandbox_ray.trials.loop import (
    GRADIENT_NORM,
    AdditiveConfig,
    AdditiveTraining,
    BatchPart,
    batch_positions,
    checkpoint_gradients,
    lower_frozen,
    resolved,
)
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.strategies.strategy import (
    Group,
    changing,
    check_names,
    check_rows_apart,
    twin,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one worker learns of whole batches."""
    return trained(Sentences())


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference of two trainings' weights."""
    assert one["weights"].keys() == other["weights"].keys()
    return max(
        float(np.abs(value - other["weights"][name]).max())
        for name, value in one["weights"].items()
    )


def assert_told_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    for (seen, loss, terms), (seen_2, loss_2, terms_2) in zip(
        one["told"], other["told"], strict=True
    ):
        assert seen == seen_2
        assert loss == pytest.approx(loss_2, rel=1e-5)
        assert terms == pytest.approx(terms_2, rel=1e-3)


# Micro-batches


@pytest.mark.parametrize("micro", [1, 3, 10, 100])
def test_micro_batches_change_nothing(micro: int, alone: dict[str, Any]) -> None:
    found = trained(Sentences(), micro_batch=micro)
    assert difference(found, alone) < TOLERANCE
    assert_told_alike(found, alone)


def test_a_mean_of_means_would_change_the_result(alone: dict[str, Any]) -> None:
    naive = trained(MeanOfMeans(3), micro_batch=3)
    assert difference(naive, alone) > 100 * TOLERANCE


def test_what_is_told_is_a_mean_over_what_is_to_be_learnt(alone: dict[str, Any]) -> None:
    assert [seen for seen, *_ in alone["told"]] == [20, 47]
    for _, loss, terms in alone["told"]:
        assert set(terms) == {"nll", "right", GRADIENT_NORM}
        assert terms["nll"] == pytest.approx(loss, rel=1e-6)
        assert 0 <= terms["right"] <= 1
        assert terms[GRADIENT_NORM] > 0
    # Before anything is learnt, every word is as likely.
    objective = Sentences()
    first = objective.collate(np.arange(8), np.arange(8))
    loss, _ = objective.loss(objective.model, first)
    assert float(loss.detach()) / objective.weight(first) == pytest.approx(math.log(24), rel=0.05)


def test_the_model_learns() -> None:
    work = training(Sentences(), learning_rate=2e-2, warmup=0.0)
    losses = [state.loss for state in work.run([100, 900])]
    assert losses[1] < 0.7 * losses[0]


def test_checkpointed_gradients_are_the_same(alone: dict[str, Any]) -> None:
    found = trained(Sentences(), gradient_checkpointing=True, micro_batch=5)
    assert difference(found, alone) < TOLERANCE


def test_a_model_that_cannot_checkpoint_gradients_says_so() -> None:
    with pytest.raises(BadInput, match="gradient_checkpointing: Linear cannot do it"):
        checkpoint_gradients(torch.nn.Linear(2, 2))


# Several workers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers have left of the cases that are fast enough."""
    return _together(tmp_path_factory.mktemp("pair"), ["ddp", "fsdp", "zero2"])


@pytest.fixture(scope="module")
def slow_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _together(tmp_path_factory.mktemp("slow_pair"), ["zero3"])


def _together(folder: Path, cases: list[str]) -> Path:
    run_together("sentences.py", folder, cases)
    return folder


CASE = pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if c == "zero3" else []) for c in CASES]
)


def _folder(case: str, request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("slow_pair" if case == "zero3" else "pair")
    return folder


@CASE
@pytest.mark.parametrize("micro", MICRO)
def test_two_workers_learn_what_one_does(
    case: str, micro: int | None, request: pytest.FixtureRequest, alone: dict[str, Any]
) -> None:
    folder = _folder(case, request)
    for rank in range(2):
        found = read(folder / f"{case}-{micro}-{rank}")
        assert difference(found, alone) < TOLERANCE
        assert_told_alike(found, alone)


@CASE
def test_two_workers_go_on_bit_for_bit(case: str, request: pytest.FixtureRequest) -> None:
    folder = _folder(case, request)
    whole, cut = read(folder / f"{case}-3-0"), read(folder / f"{case}-resumed-0")
    assert difference(cut, whole) == 0
    assert cut["told"] == whole["told"]


@CASE
def test_rank_0_has_the_whole_model_to_judge(case: str, request: pytest.FixtureRequest) -> None:
    folder = _folder(case, request)
    learnt = read(folder / f"{case}-resumed-0")["weights"]
    with np.load(folder / f"{case}-whole.npz") as found:
        held = {name: found[name] for name in found.files}
    begun = {name: value.detach().numpy() for name, value in small_llama().named_parameters()}
    assert held.keys() == begun.keys()
    for name, value in held.items():
        assert np.array_equal(value, learnt.get(name, begun[name])), name
    assert "model.embed_tokens.weight" not in learnt


# Checkpoints


def test_a_cut_off_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = trained(Sentences(), micro_batch=3), resumed(tmp_path)
    assert difference(cut, whole) == 0
    assert cut["told"] == whole["told"]


def _adapted(**changes: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(4)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **changes)
    return peft.get_peft_model(small_llama(), config)


def test_a_checkpoint_of_adapters_holds_nothing_that_is_frozen(tmp_path: Path) -> None:
    cut = resumed(tmp_path, make=lambda: Sentences(_adapted()))
    held = torch.load(tmp_path / "weights.pt", weights_only=True)["model"]
    assert held
    assert all(".lora_" in name for name in held)
    assert sum(value.numel() for value in held.values()) < 0.2 * sum(
        parameter.numel() for parameter in small_llama().parameters()
    )
    whole = trained(Sentences(_adapted()), micro_batch=3)
    assert difference(cut, whole) == 0
    assert any(np.abs(value).max() > 0 for name, value in whole["weights"].items() if "_B" in name)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    work = training(Sentences())
    next(iter(work.run(RUNGS)))
    work.save(tmp_path)
    other = small_llama()
    other.lm_head.requires_grad_(False)
    with pytest.raises(SandboxError, match="1 weights that are not trained, such as lm_head"):
        training(Sentences(other)).load(tmp_path)
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    del state["model"]["lm_head.weight"]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(SandboxError, match="lacks 1 of its trained weights, such as lm_head"):
        training(Sentences()).load(tmp_path)


def test_names_of_checkpoints_are_compared_exactly() -> None:
    check_names(["a", "b"], ["b", "a"])
    with pytest.raises(SandboxError, match=r"lacks 1 .* such as a and has 1 .* such as c"):
        check_names(["b", "c"], ["a", "b"])


def test_what_changes_in_a_model_is_what_is_trained_and_what_follows_it() -> None:
    norm, frozen = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3).requires_grad_(False)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), norm, frozen)
    bare = torch.nn.BatchNorm1d(3, affine=False)
    model.append(torch.nn.Sequential(torch.nn.Linear(3, 3), bare))
    assert changing(model) == {
        "0.weight",
        "0.bias",
        *(f"1.{name}" for name in norm.state_dict()),
        "3.0.weight",
        "3.0.bias",
        *(f"3.1.{name}" for name in bare.state_dict()),
    }
    tied = small_llama(tie_word_embeddings=True)
    assert not changing(tied) & {"lm_head.weight", "model.embed_tokens.weight"}
    tied.model.embed_tokens.requires_grad_(True)
    assert changing(tied) >= {"lm_head.weight", "model.embed_tokens.weight"}


def test_a_twin_shares_what_is_frozen_and_nothing_else() -> None:
    model = small_llama()
    copy = twin(model)
    frozen, own = copy.model.embed_tokens.weight, copy.lm_head.weight
    assert frozen.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert own.data_ptr() != model.lm_head.weight.data_ptr()
    assert torch.equal(own, model.lm_head.weight)


# What a model must not have, and what the loop does not accept


def test_models_that_draw_lots_are_refused_wherever_they_do() -> None:
    with pytest.raises(
        BadInput, match=r"self_attn is a LlamaAttention with attention_dropout: 0.1"
    ):
        training(Sentences(small_llama(attention_dropout=0.1)))
    with pytest.raises(BadInput, match=r"lora_dropout: 0.05|Dropout with p: 0.05"):
        training(Sentences(_adapted(lora_dropout=0.05)))
    check_rows_apart(_adapted(), "Models")


def test_a_batch_without_anything_to_learn_is_an_error() -> None:
    class Silent(Sentences):
        def weight(self, batch: Any) -> float:
            return 0.0

    with pytest.raises(SandboxError, match="the batch behind 0 samples has a weight of 0"):
        list(training(Silent()).run([10]))


def test_a_split_that_loses_samples_is_an_error() -> None:
    class Hasty(Sentences):
        def split(self, batch: Any, size: int) -> Any:
            return super().split(batch, size)[:-1]

    with pytest.raises(SandboxError, match=r"Hasty.split made 3 micro-batches .* 4 are needed"):
        list(training(Hasty(), micro_batch=3).run([10]))


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    model = small_llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    with pytest.raises(Diverged, match="the training loss is nan after 20 samples"):
        list(training(Sentences(model)).run([20]))


def test_fewer_samples_than_workers_are_shared_out_all_the_same() -> None:
    positions, order = np.array([7, 9]), np.array([40, 41])
    parts = [BatchPart.of(positions, order, Group(rank, 3)) for rank in range(3)]
    assert [part.counts for part in parts] == [True, True, False]
    assert [part.order.tolist() for part in parts] == [[40], [41], [40]]
    assert {part.longest for part in parts} == {1}


# Numbers of what is frozen


def test_frozen_matrices_may_have_fewer_bits() -> None:
    model = small_llama()
    model.model.norm.requires_grad_(False)
    lower_frozen(model)
    kinds = {name: value.dtype for name, value in model.named_parameters()}
    assert kinds.pop("model.embed_tokens.weight") is torch.bfloat16
    assert set(kinds.values()) == {torch.float32}, "norms and what is trained stay as they are"


def test_bf16_trains_over_a_frozen_base_of_bf16() -> None:
    work = training(Sentences(_adapted()), precision="bf16", frozen="auto")
    kinds = {p.dtype: p.requires_grad for p in work.whole().parameters() if p.ndim > 1}
    assert kinds == {torch.bfloat16: False, torch.float32: True}
    (state,) = work.run([20])
    assert math.isfinite(state.loss)


def test_what_is_auto_is_decided_by_the_device() -> None:
    auto = AdditiveConfig()
    on_cpu, on_gpu = resolved(auto, gpus=0), resolved(auto, gpus=1)
    assert (on_cpu.precision, on_cpu.frozen) == ("fp32", "fp32")
    assert (on_gpu.precision, on_gpu.frozen) == ("bf16", "bf16")
    assert resolved(on_gpu, gpus=1) is on_gpu
    chosen = resolved(AdditiveConfig(precision="fp32"), gpus=1)
    assert (chosen.precision, chosen.frozen) == ("fp32", "fp32")
    with pytest.raises(BadInput, match="frozen: bf16 needs precision: bf16"):
        resolved(AdditiveConfig(frozen="bf16"), gpus=0)


# Noise


def test_the_noise_of_a_sample_is_its_own() -> None:
    drawn = np.array([noise(3, number).standard_normal(50) for number in range(200)])
    assert np.array_equal(noise(3, 7).standard_normal(50), drawn[7])
    assert len(np.unique(drawn)) == drawn.size, "neighbours share a part of their streams"
    assert not np.array_equal(noise(4, 7).standard_normal(50), drawn[7])


def test_every_sample_gets_the_noise_of_its_place_in_the_order() -> None:
    met: dict[int, int] = {}

    class Noted(Sentences):
        def collate(self, positions: Any, order: Any) -> Any:
            met.update(zip(order.tolist(), positions.tolist(), strict=True))
            return super().collate(positions, order)

    list(training(Noted(), micro_batch=2).run(RUNGS))
    expected = np.concatenate(list(batch_positions(ROWS, RUNGS[-1], CONFIG.batch_size, SEED)))
    assert [met[number] for number in range(len(met))] == expected.tolist()


# The loader


def test_a_loader_keeps_the_order_and_makes_some_ahead() -> None:
    begun: list[int] = []

    def make(number: int) -> int:
        begun.append(number)
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * 10

    loaded = Loader(make, range(12), threads=3, prefetch=2)()
    for number, made in enumerate(loaded):
        assert made == number * 10
        time.sleep(0.005)
        assert max(begun) <= number + 2, "more is made than was asked for"
    assert sorted(begun) == list(range(12))


def test_what_goes_wrong_in_a_loader_is_raised_in_its_turn() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise KeyError("a broken row")
        return number

    loaded = Loader(make, range(10), threads=2, prefetch=4)()
    assert [next(loaded) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="a broken row"):
        next(loaded)


def test_a_loader_that_is_let_go_leaves_no_threads() -> None:
    loaded = Loader(lambda number: number, iter(int, 1), threads=2, prefetch=3)()
    assert next(loaded) == 0
    loaded.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_an_abandoned_training_leaves_no_threads() -> None:
    states = training(Sentences()).run([10, 20])
    next(states)
    states.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_progress_is_plain_data(tmp_path: Path) -> None:
    work = training(Sentences())
    next(iter(work.run(RUNGS)))
    work.save(tmp_path)
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["samples"], progress["steps"], progress["form"]) == (20, 2, "whole")
    assert "model.embed_tokens.weight" not in progress["trained"]
    assert isinstance(work, AdditiveTraining)
