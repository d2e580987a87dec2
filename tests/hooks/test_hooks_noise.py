"""What the controls scatter is read by later plans, of other runs too: only as it was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from damages import DAMAGES
from planted_world import EVALUATION, TRAIN, context_of, first_pools

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.noise import MeasureNoise
from djsandbox_ray.records import Noise
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.foresight.power import make_power


@pytest.fixture
def measured(storage: Storage) -> tuple[Context, Noise]:
    context, _ = context_of(storage, tracking={"type": "none"})
    return context, MeasureNoise(context).run(TRAIN, EVALUATION, first_pools(context))


def test_a_plan_finds_the_noise_of_an_earlier_run(measured: tuple[Context, Noise]) -> None:
    context, noise = measured
    assert noise.path == "runs/planted/noise.json"
    assert make_power(context.config, None)["from"] == "planted"


def test_self_tests_are_trained_too_where_they_choose_the_metrics(storage: Storage) -> None:
    metrics = [{"type": "planted_world:Measure"}]
    context, _ = context_of(storage, evaluation={"metrics": metrics, "score": "informative"})
    pools = first_pools(context)
    MeasureNoise(context).run(TRAIN, EVALUATION, pools)
    trained = {
        row["pool"] for row in storage.read_table("runs/planted/noise_trials.parquet").to_pylist()
    }
    wanted = {pool.id for pool in pools.pools if pool.spoil or pool.id.startswith("control/")}
    assert trained == wanted
    assert len(wanted) * 2 == MeasureNoise(context).ahead(pools=pools).trials


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_noise_is_no_ground_for_a_plan(
    measured: tuple[Context, Noise], damage: str
) -> None:
    context, noise = measured
    DAMAGES[damage](Path(context.storage.uri(noise.path)))
    with pytest.raises(Damaged, match=r"noise\.json is"):
        context.storage.read_sealed(noise.path)
    with pytest.raises(BadInput, match=r"no run in .* has measured the noise"):
        make_power(context.config, None)


def test_one_digit_of_the_noise_is_damage(measured: tuple[Context, Noise]) -> None:
    """It would still be JSON, and a smaller noise."""
    context, noise = measured
    file = Path(context.storage.uri(noise.path))
    text = file.read_text()
    digit = text.index("0.", text.index('"within"'))
    file.write_text(text[:digit] + "1" + text[digit + 1 :])
    with pytest.raises(BadInput, match=r"no run in .* has measured the noise"):
        make_power(context.config, None)
