from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from factories import LEFT_OUT, ConfigWriter

from djsandbox_ray.config import load_config
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator


class Unforeseen(Evaluator):
    """An evaluator of a user that does not say its metrics beforehand."""

    def evaluate(self, encoder: Encoder, data: EvaluationSet) -> dict[str, float]:
        return {"mine": 1.0}


@pytest.fixture
def write(tmp_path: Path) -> ConfigWriter:
    return ConfigWriter(tmp_path)


# Trials


def test_what_is_about_trials_needs_trials(write: ConfigWriter) -> None:
    cost = {"full_trainings": 10, "full_samples": 1000}
    assert write.problems(
        trials=LEFT_OUT, cost=cost, learning_rate_check={"learning_rate": 0.1}
    ) == [
        "cost: is about trials, but there is no section 'trials'",
        "learning_rate_check: is about trials, but there is no section 'trials'",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"trials__seeds": 1}, "trials.seeds: one seed is only for whole buckets"),
        ({"trials__seeds": [42]}, "trials.seeds: one seed is only for whole buckets"),
        (
            {"pools": {"draw_share": 1.0, "controls": 5}, "confirm": {"top": 0}},
            "pools.controls: whole buckets (pools.draw_share: 1.0) need at least 8 control arms",
        ),
        (
            {"confirm": {"seeds": 1}},
            "confirm.seeds: draws (pools.draw_share below 1) need at least 2 seeds",
        ),
    ],
)
def test_seeds_and_controls_fit_how_rows_are_drawn(
    write: ConfigWriter, changes: dict[str, Any], line: str
) -> None:
    (found,) = write.problems(**changes)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {
                "trials__model": {"type": "staged_family:Late"},
                "trials__early_stopping": {"type": "none", "rungs": [0.5]},
            },
            "trials.early_stopping.rungs: the model 'staged_family:Late' can be judged at the end",
        ),
        (
            {"evaluation__metrics": [{"type": "staged_family:Unprompted"}]},
            "evaluation.metrics: no metric of the score shows whether captions were spoilt, as a "
            "self-test does it: add an evaluator that does (",
        ),
        (
            {
                "evaluation__metrics": [
                    {"type": "staged_family:Unprompted"},
                    {"type": "retrieval", "k": [1]},
                ],
                "evaluation__score": ["unprompted/sharp"],
            },
            "evaluation.score: no metric of the score shows whether captions were spoilt, as a "
            "self-test does it: add one of retrieval/image_to_text_r1, retrieval/",
        ),
    ],
)
def test_rungs_and_scores_fit_the_model_and_the_self_tests(
    write: ConfigWriter, changes: dict[str, Any], line: str
) -> None:
    (found,) = write.problems(**changes)
    assert found.startswith(line)


def test_metrics_that_self_tests_choose_need_self_tests(write: ConfigWriter) -> None:
    changes = {"evaluation__score": "informative", "pools": {"self_tests": False}}
    (found,) = write.problems(**changes)
    assert found.startswith("evaluation.score: 'informative' takes the metrics that see self-tests")
    load_config(write(evaluation__score="informative"))


def test_a_score_that_is_blind_to_captions_needs_no_self_test(write: ConfigWriter) -> None:
    metrics = [{"type": "staged_family:Unprompted"}]
    load_config(write(evaluation__metrics=metrics, pools={"self_tests": False}))
    # An evaluator that cannot say which metrics it has is believed to see everything.
    load_config(write(evaluation__metrics=[*metrics, {"type": f"{__name__}:Unforeseen"}]))


def test_stages_that_can_be_judged_have_rungs(write: ConfigWriter) -> None:
    for name, rungs in (("Early", [0.5]), ("Late", [])):
        stopping = {"type": "none", "rungs": rungs}
        model = {"type": f"staged_family:{name}"}
        load_config(write(trials__model=model, trials__early_stopping=stopping))


def test_an_error_in_one_section_hides_none_of_others(write: ConfigWriter) -> None:
    """What sections contradict each other in is found whatever else is wrong."""
    found = write.problems(
        name="no name",
        dataset={"type": "jsonl", "path": "x.jsonl", "content": "texts"},
        operators=["text_length_filter", {"no_such_filter": {}}, "image_shape_filter"],
        trials__seeds=1,
        confirm={"top": 1, "seeds": 1},
        report={"labels": 3},
    )
    places = [line.split(": ")[0] for line in found]
    assert sorted(places) == [
        "confirm.seeds",
        "name",
        "operators[1]",
        "operators[2].image_shape_filter",
        "report.labels",
        "trials.model.type",
        "trials.seeds",
    ]


# Operators


def test_a_number_that_is_none_hides_no_missing_model(write: ConfigWriter) -> None:
    gone = {"image_text_similarity_filter": {"hf_clip": "/no/such/folder"}}
    found = write.problems(operators=[gone], jobs={"a": {"b": math.nan}})
    assert any("needs hf_clip" in line for line in found)
    assert any("a finite number is needed" in line for line in found)


def test_an_operator_that_stands_twice_is_an_error(write: ConfigWriter) -> None:
    (line,) = write.problems(operators=["text_length_filter", {"text_length_filter": {}}])
    assert line.startswith("operators[1].text_length_filter: gives the same statistics")


@pytest.mark.parametrize("scorer", [LEFT_OUT, None])
def test_the_scorer_is_used_only_where_there_is_one(write: ConfigWriter, scorer: Any) -> None:
    operators = [{"image_text_similarity_filter": {"hf_clip": "${scorer}"}}]
    changes = {} if scorer is LEFT_OUT else {"scorer": scorer}
    assert write.problems(operators=operators, **changes) == [
        "operators: ${scorer} is used, but there is no section 'scorer'"
    ]


def test_the_scorer_stands_alone(write: ConfigWriter) -> None:
    (line,) = write.problems(
        operators=[{"image_text_similarity_filter": {"hf_clip": "${scorer}/model"}}],
        scorer={"dataset": {"type": "shapes", "samples": 10}, "budget": 10},
    )
    assert line == (
        "operators[0].image_text_similarity_filter.hf_clip: "
        "${scorer} must stand alone, not in '${scorer}/model'"
    )


def test_with_a_scorer_it_may_be_used(write: ConfigWriter) -> None:
    config = load_config(
        write(
            operators=[{"image_text_similarity_filter": {"hf_clip": "${scorer}"}}],
            scorer={"dataset": {"type": "shapes", "samples": 10}, "budget": 10},
        )
    )
    assert config.scorer is not None


# Chains of stages


STAGE = {"name": "first", "pool": "text_len/high", "model": {"learning_rate": 1e-6}}
VIDEOS: dict[str, Any] = {
    "dataset": {"type": "clips", "samples": 10},
    "operators": ["text_length_filter"],
    "trials__model": {"type": "t2v", "base": {"path": "/nowhere"}},
    "evaluation__dataset": {"type": "clips", "samples": 10},
    "evaluation__metrics": [{"type": "denoising"}, {"type": "prompt_match"}],
    "evaluation__aggregate": "standardized",
}


def test_a_chain_of_stages_is_checked_with_all_else(write: ConfigWriter) -> None:
    stages = [STAGE, {**STAGE, "name": "second", "pool": "control/0", "teacher": "previous"}]
    rewards = {"image": {"type": "clip", "path": "${scorer}"}}
    objective = {"type": "consistency", "rewards": rewards, "weights": {"video": 0}}
    assert load_config(write(**VIDEOS, evolution={"stages": [STAGE]})).evolution is not None
    found = write.problems(**VIDEOS, evolution={"stages": stages})
    assert found == ["evolution.stages[1].model.objective.type: a teacher needs 'consistency'"]
    found = write.problems(
        **VIDEOS,
        evolution={
            "stages": [
                {**STAGE, "pool": "text_lem/high", "model": {"objective": objective}},
                {**STAGE, "name": "second", "pool": "best", "model": {"learning_rat": 1}},
            ]
        },
    )
    assert len(found) == 3
    assert found[0] == "evolution: ${scorer} is used, but there is no section 'scorer'"
    assert found[1].startswith("evolution.stages[1].model.learning_rat: ")
    assert found[2].startswith("evolution.stages[0].pool: no statistic gives 'text_lem/high'")
    assert "did you mean 'text_len'" in found[2]
    stages = [{**STAGE, "pool": "text_len/hihg"}, {**STAGE, "name": "second", "pool": "text_len"}]
    found = write.problems(**VIDEOS, evolution={"stages": stages})
    assert found == [
        "evolution.stages[0].pool: 'text_len' has no part 'hihg'; did you mean 'high'?; its parts "
        "are low, middle, high",
        "evolution.stages[1].pool: 'text_len' has no part ''; its parts are low, middle, high",
    ]


def test_a_chain_needs_trials(write: ConfigWriter) -> None:
    assert write.problems(trials=LEFT_OUT, evolution={"stages": [STAGE]}) == [
        "evolution: is about trials, but there is no section 'trials'"
    ]


# Names of statistics


def test_names_of_statistics_are_checked_all_at_once(write: ConfigWriter) -> None:
    ask = {"type": "range", "name": "text_len", "statistic": "text_lenn", "low": 1}
    problems = write.problems(
        pools={"within": [{"statistic": "text_len"}, {"statistic": "text"}], "extra": [ask]},
        policies=[{"statistic": "txt_len", "above": 3}],
        trials__seeds="five",  # an error elsewhere hides nothing
    )
    known = "(known: text_len)"
    assert problems[0].startswith("trials.seeds: ")
    assert problems[1:] == [
        f"pools.within[1].statistic: unknown statistic 'text'; did you mean 'text_len'? {known}",
        "pools.extra[0].name: 'text_len' is the name of a statistic",
        f"pools.extra[0]: unknown statistic 'text_lenn'; did you mean 'text_len'? {known}",
        f"policies[0].statistic: unknown statistic 'txt_len'; did you mean 'text_len'? {known}",
    ]


def test_names_are_those_that_the_run_gives(write: ConfigWriter) -> None:
    operators = ["image_shape_filter", *({"stopwords_filter": {"lang": x}} for x in ("en", "zh"))]
    names = ["image_width", "image_height", "stopwords_ratio[lang=en]"]
    path = write(
        operators=operators[:1], policies=[{"statistic": x, "above": 1} for x in names[:2]]
    )
    assert len(load_config(path).policies) == 2
    problems = write.problems(
        operators=operators,
        pools={"within": [{"statistic": x} for x in [*names, "stopwords_ratio"]]},
    )
    assert [line for line in problems if "statistic" in line] == [
        "pools.within[3].statistic: unknown statistic 'stopwords_ratio'; did you mean "
        "'stopwords_ratio[lang=zh]'? (known: image_height, image_width, "
        "stopwords_ratio[lang=en], stopwords_ratio[lang=zh])"
    ]


def test_names_that_a_scorer_is_a_part_of_are_not_known_yet(
    write: ConfigWriter, tmp_path: Path
) -> None:
    operator = "image_text_similarity_filter"
    similar = [{operator: {"hf_clip": folder}} for folder in ("${scorer}", str(tmp_path))]
    scorer = {"dataset": {"type": "shapes", "samples": 10}, "budget": 10}
    policies = [{"statistic": "similarity", "above": 0.5}]
    (line,) = write.problems(operators=similar[:1], scorer=scorer, policies=policies)
    assert line == (
        "policies[0].statistic: unknown statistic 'similarity'; did you mean "
        "'image_text_similarity'? (known: image_text_similarity)"
    )
    assert load_config(write(operators=similar, scorer=scorer, policies=policies)).policies


def test_without_known_operators_no_statistic_is_unknown(write: ConfigWriter) -> None:
    (line,) = write.problems(operators=["nosuch"], policies=[{"statistic": "x", "above": 1}])
    assert line.startswith("operators[0]: unknown operator 'nosuch'")


# What samples are


def test_who_trains_measures_and_computes_fits_what_samples_are(write: ConfigWriter) -> None:
    changes: dict[str, Any] = {
        "dataset": {"type": "jsonl", "path": "a.jsonl", "content": "videos"},
        "evaluation__dataset": {"type": "jsonl", "path": "b.jsonl", "content": "texts"},
        "evaluation__metrics": [{"type": "retrieval"}],
        "operators": ["text_length_filter", "image_shape_filter"],
        "scorer": {
            "dataset": {"type": "jsonl", "path": "b.jsonl", "content": "any"},
            "budget": 100,
        },
    }
    assert [line for line in write.problems(**changes) if "content" in line] == [
        "scorer.dataset.content: the scorer trains on pairs, not on 'any'",
        "trials.model.type: 'clip' trains on pairs, but dataset.content is 'videos'",
        "evaluation.metrics[0].type: 'retrieval' measures on pairs, but evaluation.dataset.content "
        "is 'texts'",
        "operators[1].image_shape_filter: reads image, but dataset.content 'videos' has text and "
        "video alone",
    ]


def test_only_videos_that_are_files_of_their_own_can_stay_where_they_lie(
    write: ConfigWriter,
) -> None:
    changes: dict[str, Any] = {
        "ingest": {"videos": {"store": "reference"}},
        "dataset": {"type": "parquet", "path": "a", "content": "videos"},
        "evaluation__dataset": {"type": "folder", "path": "b", "content": "videos"},
    }
    assert [line for line in write.problems(**changes) if "reference" in line] == [
        "dataset.type: ingest.videos.store: reference needs videos that are files of their own "
        "(csv, folder, jsonl, llava); those of 'parquet' are not"
    ]


def test_a_source_says_what_it_gives(write: ConfigWriter) -> None:
    asked = {"type": "shapes_questions", "samples": 100}
    said = "trials.model.type: 'clip' trains on pairs, but dataset.content is 'conversations'"
    assert said in write.problems(dataset=asked)
    found = write.problems(dataset__content="videos")
    assert "dataset.content: the source 'shapes' gives pairs, not 'videos'" in found
