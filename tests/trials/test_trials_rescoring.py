"""Answers are scored again trial by trial: what is wrong with one is no other's affair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from djsandbox_ray.errors import BadInput, Damaged, StorageFailed
from djsandbox_ray.evaluation.answer_store import AnswerStore, Unanswered
from djsandbox_ray.evaluation.suite import NotFinite, Suite
from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.rescoring import _Failure, _score

TROUBLE = {
    "gone": Unanswered("3 answers"),
    "not-finite": NotFinite("the metric 'x' is nan"),
    "unscorable": BadInput("the answer of 'q' is none"),
    "of-a-user": KeyError("x"),
}


class Formula(Suite):
    """Doubles a metric, with trouble for some trainings."""

    def __init__(self, trouble: Mapping[str, Exception]) -> None:
        super().__init__([], [])
        self.trouble = trouble

    def rescored(self, metrics: Mapping[str, float], store: AnswerStore) -> dict[str, float]:
        if (error := self.trouble.get(store.training)) is not None:
            raise error
        return {name: 2 * value for name, value in metrics.items()}


def record(training: str) -> TrialRecord:
    spec = TrialSpec(training, "a/low", 0, "draw", 64, training)
    report = RungReport(64, 0.5, {"x": 1.0}, 1.0, 1.0, 0)
    return TrialRecord(spec, TrialState.COMPLETED, (report,), scored="before")


def test_what_is_wrong_with_one_trial_ends_no_other(storage: Storage) -> None:
    records = [record(name) for name in (*TROUBLE, "good")]
    (gone, nan, unscorable, odd, good), _ = _score(records, Formula(TROUBLE), storage.url)
    assert gone is None
    assert isinstance(good, tuple)
    assert good[0].metrics == {"x": 2.0}
    assert isinstance(nan, _Failure)
    assert isinstance(unscorable, _Failure)
    assert isinstance(odd, _Failure)
    assert nan.error == "NotFinite: the metric 'x' is nan"
    failed = nan.of(records[1], "now")
    assert failed == replace(records[1], state=TrialState.FAILED, error=nan.error, diverged=True)
    assert (failed.settled, failed.scored) == (True, "now")
    failed = unscorable.of(records[2], "now")
    assert (failed.settled, failed.scored) == (False, "before"), "worth another try"
    assert failed.reports == records[2].reports
    assert failed.traceback is not None
    assert "BadInput" in failed.traceback
    assert odd.error == "KeyError: 'x'"


@pytest.mark.parametrize(
    "error", [StorageFailed("no space is left"), Damaged("answers", "run it again")]
)
def test_what_is_wrong_with_the_storage_ends_all(storage: Storage, error: Exception) -> None:
    with pytest.raises(type(error)):
        _score([record("bad"), record("good")], Formula({"bad": error}), storage.url)
