"""A trial of several stages: one count of samples, rungs where it can be judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentences import CONFIG, ROWS, SEED, Sentences, small_llama

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialTask
from djsandbox_ray.trials.loop import AdditiveTraining
from djsandbox_ray.trials.staged import train_stages
from djsandbox_ray.trials.stages import (
    Stage,
    check_rungs,
    ends,
    flops,
    judged_from,
    total,
)
from djsandbox_ray.trials.stopping.stopping import StoppingConfig

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = Stage("head", 20, judged=False, flops_per_sample=2.0)
ALL = Stage("all", 30, flops_per_sample=5.0)
STAGES = (HEAD, ALL)


# Arithmetic


def test_samples_and_operations_are_counted_through_all_stages() -> None:
    assert total(STAGES) == 50
    assert ends(STAGES) == [20, 50]
    assert [flops(STAGES, seen) for seen in (0, 10, 20, 21, 50)] == [0, 20, 40, 45, 190]
    uncounted = (HEAD, Stage("all", 30))
    assert flops(uncounted, 20) == 40
    assert flops(uncounted, 21) is None, "a part would look like the whole"


@pytest.mark.parametrize(
    ("each", "samples", "printed"),
    [
        (12e12, 640_000, 7.68e18),
        (478e12, 350_000, 1.673e20),
        (14.78e9, 12_800_000, 1.892e17),
        (41.09e9, 12_800_000, 5.26e17),
    ],
)
def test_operations_are_those_of_the_papers_appendix_e9(
    each: float, samples: int, printed: float
) -> None:
    stages = (Stage("train", samples, flops_per_sample=each),)
    assert flops(stages, total(stages)) == pytest.approx(printed, rel=1e-3)


def test_a_model_can_be_judged_behind_the_last_stage_that_is_not() -> None:
    assert judged_from(STAGES) == 20
    assert judged_from((ALL,)) == 0
    assert judged_from((HEAD,)) == 20
    assert judged_from((ALL, HEAD, ALL)) == 50


def test_rungs_lie_where_a_model_can_be_judged() -> None:
    config = StoppingConfig(type="none", rungs=[0.1, 0.5])
    assert config.rung_samples(50) == (5, 25, 50)
    assert config.rung_samples(50, 20) == (23, 35, 50)
    check_rungs(STAGES, config.rung_samples(total(STAGES), judged_from(STAGES)))
    with pytest.raises(BadInput, match=r"20 samples .* 'head', .* the first possible one is 21"):
        check_rungs(STAGES, (20, 35, 50))
    with pytest.raises(BadInput, match="cannot be judged; at none"):
        check_rungs((ALL, HEAD), (25, 50))
    check_rungs((ALL, HEAD), (50,))


# Training


class Course:
    """The head of a model first, then all of it; notes which stages began, and with what."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, list[str]]] = []
        self.judged = 0

    def begin(self, stage: Stage, earlier: dict[str, Any]) -> AdditiveTraining:
        self.begun.append((stage.name, sorted(earlier)))
        model = small_llama()
        model.load_state_dict(earlier, strict=False)
        for name, parameter in model.named_parameters():
            is_head = name == "lm_head.weight"
            parameter.requires_grad_(is_head if stage is HEAD else "embed_tokens" not in name)
        return AdditiveTraining(Sentences(model), ROWS, CONFIG, SEED, "cpu")

    def evaluate(self, training: AdditiveTraining, samples: int) -> dict[str, float]:
        assert samples in (30, 40, 50)
        self.judged += 1
        weights = training.weights()
        return {name: float(value.double().abs().sum()) for name, value in weights.items()}


def _task(storage: Storage, rungs: tuple[int, ...], trial: str = "t") -> TrialTask:
    rows = np.arange(ROWS)
    checkpoint = Checkpoint(storage.url, trial)
    from djsandbox_ray.trials.strategies.strategy import Group

    return TrialTask(
        seed=0,
        rows=rows,
        captions=rows,
        rungs=rungs,
        cpus=1,
        gpus=0,
        checkpoint=checkpoint,
        group=Group(),
        evaluate=lambda model, samples=None: {},
        budget=20,
    )


def _numbers(reports: list[RungReport]) -> list[Any]:
    return [(one.samples, one.loss, one.metrics, one.terms) for one in reports]


def _trained(storage: Storage, course: Course, **more: Any) -> list[RungReport]:
    task = _task(storage, (35, 50), **more)
    return list(train_stages(task, STAGES, course.begin, course.evaluate))


def test_a_later_stage_goes_on_from_what_the_first_has_learnt(storage: Storage) -> None:
    course = Course()
    reports = _trained(storage, course)
    assert course.begun == [("head", []), ("all", ["lm_head.weight"])]
    # A rung inside a batch is reported at its end, 20 + 20.
    assert [one.samples for one in reports] == [40, 50]
    assert course.judged == 2
    first, last = (one.terms for one in reports)
    assert first["head/loss"] > 0, "the first report tells how the first stage ended"
    assert "head/loss" not in last
    alone = Course()
    only = list(
        train_stages(
            _task(storage, (30,), "alone"), [Stage("all", 30)], alone.begin, alone.evaluate
        )
    )
    assert only[-1].metrics != reports[-1].metrics, "the second stage began from the first's head"


@pytest.mark.parametrize("after", [0, 1])
def test_a_trial_goes_on_in_the_stage_where_it_was_cut_off(storage: Storage, after: int) -> None:
    whole = _trained(storage, Course())
    cut = Course()
    states = train_stages(_task(storage, (35, 50), "cut"), STAGES, cut.begin, cut.evaluate)
    reports = [next(states) for _ in range(after)]
    if not after:  # killed as soon as the second stage has begun
        with pytest.raises(RuntimeError):
            list(
                train_stages(
                    _task(storage, (35, 50), "cut"), STAGES, _broken_at_all(cut), cut.evaluate
                )
            )
    states.close()  # type: ignore[attr-defined]
    again = Course()
    reports += list(
        train_stages(_task(storage, (35, 50), "cut"), STAGES, again.begin, again.evaluate)
    )
    assert _numbers(reports) == _numbers(whole)
    if after:
        assert again.begun == [("all", ["lm_head.weight"])]
    else:  # what the first stage learnt is read, and not learnt again
        assert again.begun == [("head", []), ("all", ["lm_head.weight"])]
        assert again.judged == 2


@pytest.mark.parametrize("rung", [40, 50])
def test_who_is_cut_off_while_it_is_judged_is_not_trained_again(
    storage: Storage, rung: int
) -> None:
    whole = _trained(storage, Course())

    class Cut(Course):
        def evaluate(self, training: AdditiveTraining, samples: int) -> dict[str, float]:
            if samples == rung:
                raise KeyboardInterrupt
            return super().evaluate(training, samples)

    task = _task(storage, (35, 50), "cut")
    cut, reports = Cut(), list[RungReport]()
    with pytest.raises(KeyboardInterrupt):
        reports.extend(train_stages(task, STAGES, cut.begin, cut.evaluate))
    kept = Checkpoint(storage.url, "cut")
    assert [one.samples for one in kept.reports()] == [one for one in (20, 40) if one < rung]
    pending = kept.pending()
    assert pending is not None
    assert (pending.samples, pending.metrics) == (rung, {})
    assert kept.samples() == rung

    steps: list[int] = []
    again = Course()

    def begin(stage: Stage, earlier: dict[str, Any]) -> AdditiveTraining:
        training = again.begin(stage, earlier)
        step = training._step

        def counted(batch: Any) -> None:
            steps.append(1)
            step(batch)

        training._step = counted  # type: ignore[method-assign]
        return training

    task = _task(storage, (35, 50), "cut")
    found = list(train_stages(task, STAGES, begin, again.evaluate))
    assert again.begun == [("all", ["lm_head.weight"])]
    assert len(steps) == (50 - rung) / CONFIG.batch_size
    assert _numbers(found) == _numbers([one for one in whole if one.samples >= rung])
    assert Checkpoint(storage.url, "cut").pending() is None
    assert _numbers([*Checkpoint(storage.url, "cut").reports()][-1:]) == _numbers(whole[-1:])


def _broken_at_all(course: Course) -> Any:
    def begin(stage: Stage, earlier: dict[str, Any]) -> AdditiveTraining:
        if stage is not HEAD:
            raise RuntimeError("the process is gone")
        return course.begin(stage, earlier)

    return begin


def test_the_end_of_a_stage_that_is_not_judged_is_kept_and_not_reported(storage: Storage) -> None:
    course = Course()
    with pytest.raises(RuntimeError):
        list(
            train_stages(_task(storage, (35, 50)), STAGES, _broken_at_all(course), course.evaluate)
        )
    (kept,) = Checkpoint(storage.url, "t").reports()
    assert kept.samples == 20
    assert kept.metrics == {}
    assert course.judged == 0
    with Checkpoint(storage.url, "t").load() as found:
        assert found is not None
        assert set(torch.load(found[1] / "weights.pt", weights_only=True)["model"]) == {
            "lm_head.weight"
        }


def test_rungs_and_stages_must_agree(storage: Storage, tmp_path: Path) -> None:
    course = Course()
    for rungs, error, message in (
        ((35, 60), SandboxError, "the last rung is 60, the stages have 50"),
        ((10, 50), BadInput, "a rung at 10 samples lies in or before the stage 'head'"),
    ):
        with pytest.raises(error, match=message):
            next(train_stages(_task(storage, rungs), STAGES, course.begin, course.evaluate))
    assert course.begun == []
