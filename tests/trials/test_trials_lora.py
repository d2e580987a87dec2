"""Adapters of low rank: they begin as nothing, and learn whatever numbers the model has."""

from __future__ import annotations

from typing import Any

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.loop import LoopConfig, adamw
from djsandbox_ray.trials.lora import put_adapters

torch = pytest.importorskip("torch")
pytest.importorskip("peft")


def model(dtype: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        made = torch.nn.ModuleDict(
            {"to_q": torch.nn.Linear(16, 16), "to_x": torch.nn.Linear(16, 3)}
        )
    made = made.to(dtype).requires_grad_(False)
    put_adapters(made, 4, 4.0, ("to_q",), seed, "lora.targets")
    return made


def trained(made: Any) -> dict[str, Any]:
    return {name: one for name, one in made.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_float32_on_whatever_they_are_put(dtype: Any) -> None:
    made = model(dtype)
    adapters = trained(made)
    assert len(adapters) == 2
    assert all(".lora_" in name for name in adapters)
    assert {one.dtype for one in adapters.values()} == {torch.float32}
    kept = {one.dtype for one in made.parameters() if not one.requires_grad}
    assert kept == {dtype}, "what is frozen stays as it is"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_small_step_is_not_rounded_away(dtype: Any) -> None:
    made = model(dtype)
    before = {name: one.detach().clone() for name, one in trained(made).items()}
    optimizer = adamw(made, LoopConfig(learning_rate=2e-5, weight_decay=0.0))
    for one in trained(made).values():
        one.grad = torch.ones_like(one)
    optimizer.step()
    for name, one in trained(made).items():
        assert torch.allclose(before[name] - one, torch.full_like(one, 2e-5), rtol=0.01), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_begin_as_the_model_and_by_the_seed(dtype: Any) -> None:
    one, same, other = model(dtype), model(dtype), model(dtype, seed=1)
    given = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    layer = one["to_q"]
    assert torch.equal(layer(given), layer.base_layer(given))
    first = {name: value for name, value in trained(one).items() if "lora_A" in name}
    assert all(torch.equal(value, trained(same)[name]) for name, value in first.items())
    assert not any(torch.equal(value, trained(other)[name]) for name, value in first.items())


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(BadInput, match=r"lora\.targets: the model has no linear layers to_z \(the"):
        put_adapters(torch.nn.ModuleDict(), 4, 4.0, ("to_z",), 0, "lora.targets")
