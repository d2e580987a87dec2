"""Models that answer questions, in whole runs: what is stored is never asked nor trained again."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_answers import Quiz, asked
from small_family import notes
from small_runs import SMALL, Ran, document, jobs_until, run

from djsandbox_ray.config import checked
from djsandbox_ray.errors import PlanRefused, SandboxError
from djsandbox_ray.workflows.run import run_sandbox

pytestmark = pytest.mark.integration

ROWS = 30


def changes(folder: Path, **quiz: Any) -> dict[str, Any]:
    """Return the sections of a run without a trusted split: one benchmark, which is asked about."""
    metric = {"type": "small_answers:Quiz", "samples": ROWS, "place": str(folder), **quiz}
    return {
        "name": "answers",
        "dataset": {**SMALL["dataset"], "samples": 600},
        "pools": {"controls": 5, "size": 160},
        "trials": {
            **SMALL["trials"],
            "model": {"type": "small_answers:Pupil", "place": str(folder)},
            "retries": 1,
        },
        "evaluation": {"metrics": [metric], "aggregate": "mean_relative", "score": ["quiz/right"]},
        "workflow": jobs_until("ranking"),
        "tracking": {"type": "none"},
        "report": {},
    }


def rescored(folder: Path, **quiz: Any) -> Ran:
    """Score what is stored again, without any training."""
    config, out = checked(document(folder, changes(folder, **quiz)), "config.yaml"), io.StringIO()
    outputs = run_sandbox(config, Console(file=out, width=400), trains=False)
    return Ran(config, out.getvalue(), outputs)


class Notes:
    """What models did since the last look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = (0, 0)

    def new(self) -> tuple[int, list[tuple[str, int, str]]]:
        """Return how many trainings began, and all questions that were asked."""
        started, questions = len(notes(self._folder, "start")), asked(self._folder)
        (before, known), self._seen = self._seen, (started, len(questions))
        return started - before, questions[known:]


@pytest.fixture(scope="module")
def first(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Notes]:
    folder = tmp_path_factory.mktemp("answers")
    (folder / "kill").touch()  # one trial's process dies between its answers and their scores
    return run(folder, changes(folder)), Notes(folder)


def test_what_is_stored_is_scored_again_and_what_is_lost_is_asked_again(
    first: tuple[Ran, Notes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, told = first
    folder = ran.home.parent
    trials = ran.parquet()
    started, questions = told.new()
    assert not (folder / "kill").exists()
    assert started == len(trials) + 1, "one process was killed, and its trial begun again"
    assert set(Counter(questions).values()) == {1}, "its answers were kept, and not asked for again"
    assert set(trials["state"]) == {"COMPLETED"}
    wrong, right = trials["metric:quiz/wrong"], trials["metric:quiz/right"]
    assert (wrong + right).to_numpy() == pytest.approx(1)
    assert ((trials["metric:quiz/unparsed"] > 0) & (trials["metric:quiz/cut"] > 0)).all()
    assert ran.ranking.loc["special_char_ratio/low", "change"] > 0
    (evaluation,) = (one for one in ran.outputs.values() if type(one).__name__ == "Evaluation")
    assert [one.rows for one in evaluation.sets] == [ROWS]

    # Another formula: other numbers, and no model at work. It may be done by `rescore` alone.
    again = run(folder, changes(folder, formula="both"))
    assert told.new() == (0, [])
    assert "are scored again, without their models" in again.out
    both = again.parquet()
    assert list(both["trial"]) == list(trials["trial"])
    assert (both["metric:quiz/right"] <= right).all()
    assert (both["metric:quiz/right"] < right).any()

    # The same with a metric that is better when less, and the verdicts turn round.
    falling = changes(folder)
    falling["evaluation"] |= {"score": ["quiz/wrong"]}
    turned = run(folder, falling)
    assert told.new() == (0, [])
    names = ran.ranking.index
    assert (turned.ranking.loc[names, "change"] * ran.ranking["change"] > 0).all()

    with monkeypatch.context() as patch:
        patch.setattr(Quiz, "VERSION", 2)
        newer = run(folder, changes(folder))
        assert told.new() == (0, [])
        assert "are scored again, without their models" in newer.out

    # Half of one model's answers are lost: with the next formula only these are asked again.
    spec = next(iter(trials["trial"]))
    training = ran.json(f"../../trials/{spec}.json")["spec"]["training"]
    parts = sorted((ran.home / "answers" / training).glob("64/*.parquet/*.parquet"))
    assert len(parts) == 2, "one for each round of questions"
    parts[0].write_bytes(parts[0].read_bytes()[:-1] + b"?")
    (lost,) = trials.loc[trials["trial"] == spec, ["pool", "seed"]].itertuples(index=False)
    with pytest.raises(PlanRefused) as caught:
        rescored(folder, formula="both")
    head, why, last = str(caught.value).splitlines()
    assert lost.pool.startswith("control/"), "which are studied first"
    controls = trials["pool"].str.startswith("control/").sum()
    assert head == f"noise: 1 of {controls} trials cannot be scored without their models:"
    assert why == f"  some of the answers are gone: 1 ({lost.pool} seed {lost.seed})"
    assert last == "`djsandbox run` trains them; what could be scored of the others is kept"
    mended = run(folder, changes(folder, formula="both"))
    started, questions = told.new()
    assert started == 1
    assert {samples for _, samples, _ in questions} == {64}
    assert 0 < len(questions) < ROWS * 2
    assert mended.parquet()["metric:quiz/right"].tolist() == both["metric:quiz/right"].tolist()

    with monkeypatch.context() as patch:
        patch.setattr(Quiz, "ASKING", 2)
        asked_anew = run(folder, changes(folder))
    started, questions = told.new()
    assert started == len(trials)
    assert not set(asked_anew.parquet()["trial"]) & set(trials["trial"])
    assert len(questions) >= len(trials) * ROWS * 2


def test_answers_that_cannot_be_scored_cost_no_other_trial_its_scores(
    first: tuple[Ran, Notes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an evaluator of a user's has a mistake: nothing is trained for that."""
    folder, told = first[0].home.parent, first[1]
    plain = run(folder, changes(folder)).parquet()
    told.new()
    right = plain.set_index("trial")["metric:quiz/right"]
    curves = first[0].parquet("curves.parquet")
    share = right.iloc[-1]
    refused = set(curves.loc[curves["metric:quiz/right"] == share, "trial"])
    assert 0 < len(refused) < len(right)
    (folder / "refused").write_text(json.dumps([share]))
    monkeypatch.setattr(Quiz, "VERSION", 3)  # no earlier test has scored by it
    some = rescored(folder)
    assert f"the answers of {len(refused)} trials cannot be scored" in some.out
    assert "BadInput: quiz: such answers cannot be scored; they are kept: where the" in some.out
    trials = some.parquet().set_index("trial")
    assert set(trials.index[trials["state"] == "FAILED"]) == refused
    assert set(trials.index[trials["state"] == "COMPLETED"]) == set(right.index) - refused

    (folder / "refused").write_text(json.dumps(sorted(set(curves["metric:quiz/right"]))))
    monkeypatch.setattr(Quiz, "VERSION", 4)
    with pytest.raises(SandboxError, match=r"noise: the answers of .*: BadInput: quiz: ") as none:
        rescored(folder)
    assert none.value.exit_code == 1

    (folder / "refused").unlink()
    monkeypatch.setattr(Quiz, "VERSION", 3)
    mended = rescored(folder).parquet().set_index("trial")
    assert set(mended["state"]) == {"COMPLETED"}
    kept = sorted(set(right.index) - refused)
    numbers = "metric:quiz/right"
    assert mended.loc[kept, numbers].equals(trials.loc[kept, numbers])
    assert told.new() == (0, [])
