"""What the controls scatter is read by later plans, of other runs too: only as it was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from damages import DAMAGES
from planted_world import EVALUATION, TRAIN, context_of, first_pools

from djsandbox_ray.errors import BadInput, Damaged, PlanRefused
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


def _measure(storage: Storage, **noise: float) -> tuple[Context, str]:
    """Train the controls with what must be seen; return the context and all that was said."""
    context, said = context_of(storage, tracking={"type": "none"}, noise=noise)
    MeasureNoise(context).run(TRAIN, EVALUATION, first_pools(context))
    return context, said.getvalue()


def test_a_study_that_cannot_see_what_is_of_interest_says_so_and_goes_on(storage: Storage) -> None:
    context, said = _measure(storage, interest=0.0001)
    what, why, how = context.caveats
    assert what.startswith("noise: this study is not likely to see a change of 0.01 %: ")
    assert why.startswith("noise: likely because ")
    assert how.startswith("noise: no design of up to 40 control arms")
    assert all(line in said for line in context.caveats)


def test_a_study_that_sees_it_says_nothing(storage: Storage) -> None:
    context, said = _measure(storage, stop_above=0.9)
    assert context.caveats == []
    assert "is called better with 80 % probability" in said


def test_a_run_ends_behind_its_controls_where_it_is_told_to(storage: Storage) -> None:
    with pytest.raises(
        PlanRefused, match=r"noise\.stop_above is 0\.0001 \(0\.01 %\), and the study"
    ):
        _measure(storage, stop_above=0.0001)
    assert storage.exists("runs/planted/noise.json"), "plans of other runs may ask it"


def test_what_must_be_seen_is_asked_again_of_a_run_that_is_done(storage: Storage) -> None:
    """Else the key, set afterwards, would do nothing: the job is done."""
    plain, _ = context_of(storage)
    asked, _ = context_of(storage, noise={"stop_above": 0.1})
    assert MeasureNoise(plain).identity() != MeasureNoise(asked).identity()
