from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput, PlanRefused
from djsandbox_ray.ledger.planner import CostConfig, CostPlan, check, plan_cost

CONFIG = CostConfig(full_trainings=5, full_samples=1_000_000)


def test_samples_decide_where_nothing_was_counted() -> None:
    plan = plan_cost(CONFIG, trials=30, trial_samples=100_000, flops_per_sample=None)
    assert (plan.unit, plan.ratio, plan.spent) == ("samples", 0.1, 4.0)
    assert plan.allowed
    assert plan.affordable == 40


def test_operations_decide_where_they_are_known() -> None:
    config = CostConfig(full_trainings=5, full_samples=1_000_000, full_flops_per_sample=4e9)
    plan = plan_cost(
        config, trials=100, trial_samples=100_000, flops_per_sample=1e8, evaluation_flops=6e12
    )
    assert (plan.unit, plan.trial, plan.full) == ("FLOPs", 1.6e13, 4e15)
    assert plan.ratio == pytest.approx(0.004)
    assert plan.spent == pytest.approx(1.4)


def test_by_default_the_full_model_costs_per_sample_what_the_small_one_does() -> None:
    plain = plan_cost(CONFIG, trials=30, trial_samples=100_000, flops_per_sample=2e7)
    assert (plain.unit, plain.ratio) == ("FLOPs", 0.1)
    dearer = plan_cost(
        CONFIG, trials=30, trial_samples=100_000, flops_per_sample=2e7, evaluation_flops=2e12
    )
    assert dearer.ratio == pytest.approx(0.2)


def test_costs_that_cannot_be_compared_are_refused() -> None:
    config = CostConfig(full_trainings=5, full_samples=1_000_000, full_flops_per_sample=4e9)
    with pytest.raises(BadInput, match=r"cost\.full_flops_per_sample cannot be used"):
        plan_cost(config, trials=1, trial_samples=10, flops_per_sample=None)


def test_a_plan_over_budget_is_refused_unless_wanted() -> None:
    plan = plan_cost(CONFIG, trials=41, trial_samples=100_000, flops_per_sample=None)
    assert not plan.allowed
    with pytest.raises(PlanRefused, match="--over-budget") as refused:
        check(plan, over_budget=False)
    assert refused.value.exit_code == 3
    assert plan.explanation().splitlines() == [
        "m = 41 trials",
        "r = 0.1 (1e+05 of 1e+06 samples)",
        "1 + m r = 5.1 > M = 5 full trainings: over budget",
        "at most 40 such trials are allowed; fewer operators, seeds or controls, a smaller budget "
        "or a smaller model bring the cost down",
    ]
    assert str(refused.value).startswith(plan.explanation())
    check(plan, over_budget=True)


def test_a_plan_at_the_limit_is_allowed() -> None:
    plan = plan_cost(CONFIG, trials=40, trial_samples=100_000, flops_per_sample=None)
    assert plan.explanation().splitlines()[-1] == ("1 + m r = 5 <= M = 5 full trainings: allowed")
    check(plan, over_budget=False)


@given(
    st.floats(1.01, 1e4),
    st.integers(0, 10**5),
    st.integers(1, 10**9),
    st.integers(1, 10**12),
)
def test_what_is_affordable_is_allowed_and_more_is_not(
    full_trainings: float, trials: int, trial: int, full: int
) -> None:
    plan = CostPlan(full_trainings, trials, trial, full, "samples")
    if trials < plan.affordable - 1:
        assert plan.allowed
    if trials > plan.affordable + 1:
        # Far from the limit, where 1 + m r would be rounded to M.
        assert not plan.allowed or plan.spent == pytest.approx(full_trainings, rel=1e-12)


@pytest.mark.parametrize("wrong", [(5, -1, 1, 1), (5, 1, 0, 1), (5, 1, 1, 0)])
def test_a_plan_of_nonsense_is_refused(wrong: tuple[float, int, float, float]) -> None:
    with pytest.raises(ValueError, match="cost something"):
        CostPlan(*wrong, "samples")


@pytest.mark.parametrize(
    "wrong",
    [
        {"full_trainings": 1},
        {"full_trainings": float("inf")},
        {"full_samples": 0},
        {"full_samples": 1.5},
        {"full_flops_per_sample": 0},
        {"full_flops": 1e9},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CostConfig.model_validate({"full_trainings": 5, "full_samples": 10, **wrong})
