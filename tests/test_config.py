from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import LEFT_OUT, MINIMAL, ConfigWriter

from djsandbox_ray.config import RunConfig, load_config
from djsandbox_ray.dataset.shapes import ShapesConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.hooks.plans import confirmation_plan
from djsandbox_ray.workflows.beforehand import load_plan
from djsandbox_ray.workflows.language.workflow import load_workflow

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class Unforeseen(Evaluator):
    """An evaluator of a user that does not say its metrics beforehand."""

    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        return {"mine": 1.0}


class Foreseen(Unforeseen):
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("mine"),)


class Falling(Unforeseen):
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("mine", "less"), Metric("shown", "less", scored=False))


class OnlyShown(Unforeseen):
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("shown", scored=False),)


@pytest.fixture
def write(tmp_path: Path) -> ConfigWriter:
    return ConfigWriter(tmp_path)


# What is shipped


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    # A use case may name models and packages that only its own cluster has.
    load = load_plan if path.parent.name == "use_cases" else load_config
    config = load(str(path))
    load_workflow(config.workflow)
    dumped = config.model_dump(mode="json", by_alias=True)
    assert RunConfig.model_validate(dumped) == config  # config.yaml of a run can be run again


def test_there_are_shipped_configs() -> None:
    assert (CONFIGS / "demo.yaml").is_file()


# Files


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"- a", b"", b"\x00"])
def test_a_file_that_is_no_mapping_is_bad_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.yaml: "):
        load_config(str(tmp_path / "x.yaml"))


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.yaml"):
        with pytest.raises(BadInput, match="cannot be read"):
            load_config(str(path))


def test_a_key_that_stands_twice_is_bad_input(write: ConfigWriter) -> None:
    path = write()
    with Path(path).open("a") as file:
        file.write("name: again\n")
    with pytest.raises(BadInput, match="the key 'name' stands twice"):
        load_config(path)


def test_captions_in_any_language_are_read(write: ConfigWriter) -> None:
    Path(write()).write_text(
        yaml.safe_dump(MINIMAL, allow_unicode=True).replace("colour", "Farbe-色"), encoding="utf-8"
    )
    assert load_config(str(write.path)).evaluation.metrics[0].label == "Farbe-色"  # type: ignore[attr-defined]


# Errors


def test_the_valid_config_is_valid(write: ConfigWriter) -> None:
    config = load_config(write())
    assert config.dataset == ShapesConfig(type="shapes", samples=100)
    assert config.tracking.type == "mlflow"


def test_all_errors_are_told_at_once_with_their_places(write: ConfigWriter) -> None:
    lines = write.problems(
        name="a b",
        dataset={"type": "shapes", "samples": 0, "sed": 1, "shuffle_captions": {"fractio": 1}},
        operators=["text_lenght_filter", {"text_length_filter": {"min_lenn": 3}}, 7],
        pools={"buckets": 1, "size": "big"},
        trials__seeds=0,
        trials__model={"type": "clip", "learning_rat": 1},
        trials__resources={"gpus": 1},
        evaluation__metrics=[{"type": "zero_shot", "labell": "x"}, {"type": "retreival"}, "x"],
        evaluation__alpha=0,
        trackin={"type": "none"},
    )
    expected = [
        "name",
        "dataset.samples",
        "dataset.sed",
        "dataset.shuffle_captions.fraction",
        "dataset.shuffle_captions.fractio",
        "pools.buckets",
        "pools.size",
        "trials.model.learning_rat",
        "trials.seeds",
        "trials.resources.gpus",
        "evaluation.metrics[0].label",
        "evaluation.metrics[0].labell",
        "evaluation.metrics[1].type",
        "evaluation.metrics[2]",
        "evaluation.alpha",
        "trackin",
        "operators[0]",
        "operators[1].text_length_filter.min_lenn",
        "operators[2]",
    ]
    places = [line.partition(": ")[0] for line in lines]
    assert sorted(places) == sorted(expected)
    by_place = dict(zip(places, lines, strict=True))
    for place, near in {
        "dataset.sed": "seed",
        "dataset.shuffle_captions.fractio": "fraction",
        "trials.model.learning_rat": "learning_rate",
        "evaluation.metrics[0].labell": "label",
        "evaluation.metrics[1].type": "retrieval",
        "trackin": "tracking",
        "operators[0]": "text_length_filter",
        "operators[1].text_length_filter.min_lenn": "min_len",
    }.items():
        assert f"did you mean {near!r}?" in by_place[place]
    known = "cpus_per_worker, custom, deepspeed, flops_per_second, gpus_per_worker"
    assert known in by_place["trials.resources.gpus"]


@pytest.mark.parametrize(
    ("section", "allowed"),
    [
        ("name", "text like `^[A-Za-z0-9][A-Za-z0-9._-]*$` (Names the folder of the run; the same"),
        ("dataset", "mapping with a key type, one of: clips, coco, csv, "),
        ("operators", "list of text or mapping (1 or more) (Filters in the syntax of a Data-"),
    ],
)
def test_what_is_needed_is_named_with_what_it_may_be(
    write: ConfigWriter, section: str, allowed: str
) -> None:
    (line,) = write.problems(**{section: LEFT_OUT})
    assert line.startswith(f"{section}: Field required: {allowed}")


@pytest.mark.parametrize("section", ["trials", "evaluation"])
def test_sections_that_only_training_needs_may_be_absent(write: ConfigWriter, section: str) -> None:
    config = load_config(write(**{section: LEFT_OUT}))
    assert config.lacks(section)
    with pytest.raises(BadInput, match=f"{section}: the configuration has no such section"):
        getattr(config, section)
    dumped = config.model_dump(mode="json")
    assert dumped[section] is None
    assert RunConfig.model_validate(dumped) == config
    assert not load_config(write()).lacks(section)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"storage": ""}, "storage: String should have at least 1 character"),
        ({"name": ".hidden"}, "name: String should match"),
        ({"name": "../up"}, "name: String should match"),
        ({"name": "a\n"}, "name: String should match"),
        ({"dataset": "shapes"}, "dataset: a mapping with a key 'type' is needed"),
        ({"dataset__type": 3}, "dataset.type: a name is needed, one of: clips, coco, csv, "),
        ({"dataset__type": "shape"}, "dataset.type: unknown source 'shape'; did you mean 'shapes'"),
        ({"dataset__type": "os:path"}, "dataset.type: source 'os:path' is not a subclass"),
        ({"dataset__type": "no.such:X"}, "dataset.type: source 'no.such:X' cannot be imported"),
        ({"dataset__samples": "many"}, "dataset.samples: Input should be a valid integer"),
        ({"dataset__defects": {"blurr": 0.1}}, "dataset.defects: unknown defect 'blurr'"),
        ({"operators": []}, "operators: List should have at least 1 item"),
        ({"operators": "text_length_filter"}, "operators: Input should be a valid list"),
        ({"operators": [{1: 2}]}, "operators[0]: unknown operator 1"),
        ({"operators": [["a"]]}, "operators[0]: an operator is a name"),
        ({"operators": [{"a": {}, "b": {}}]}, "operators[0]: an operator is a name"),
        ({"pools": {"controls": 2}}, "pools.controls: Input should be greater than or equal to 5"),
        (
            {"trials__early_stopping": {"type": "race", "rungs": [0.5, 0.2]}},
            "trials.early_stopping.rungs: rungs are fractions between 0 and 1",
        ),
        (
            {"trials__early_stopping": {"type": "none", "rungs": [1]}},
            "trials.early_stopping.rungs: rungs are fractions between 0 and 1",
        ),
        (
            {"trials__early_stopping": {"type": "none", "alpha": 0.1}},
            "trials.early_stopping.alpha: unknown key",
        ),
        (
            {"trials__early_stopping": {"type": "races"}},
            "trials.early_stopping.type: unknown early stopping 'races'; did you mean 'race'",
        ),
        ({"trials__resources": {"workers": 0}}, "trials.resources.workers: Input should be"),
        (
            {"trials__resources": {"deepspeed": {"a": 1}}},
            "trials.resources: settings of 'deepspeed' need strategy: deepspeed",
        ),
        (
            {"trials__resources": {"workers": 2, "gpus_per_worker": 0.5}},
            "trials.resources: workers of one trial cannot share a GPU",
        ),
        ({"trials__seeds": []}, "trials.seeds: a list of seeds has 1 to 1000 of them, each once"),
        ({"trials__seeds": [1, 1]}, "trials.seeds: a list of seeds has 1 to 1000 of them"),
        ({"trials__seeds": [1, -1]}, "trials.seeds: seeds in a list are whole numbers from 0 to"),
        ({"trials__seeds": [1, 10**6]}, "trials.seeds: seeds in a list are whole numbers from 0"),
        ({"trials__seeds": [True, 2]}, "trials.seeds: seeds in a list are whole numbers from 0"),
        ({"confirm": {"controls": 4}}, "confirm.controls: Input should be greater"),
        ({"confirm": {"top": -1}}, "confirm.top: Input should be greater"),
        (
            {"cost": {"full_trainings": 1, "full_samples": 1}},
            "cost.full_trainings: Input should be greater than 1",
        ),
        ({"learning_rate_check": {}}, "learning_rate_check.learning_rate: Field required"),
        ({"trials__model__learning_rate": float("inf")}, "trials.model.learning_rate: Input"),
        ({"evaluation__metrics": []}, "evaluation.metrics: List should have at least 1 item"),
        ({"evaluation__metrics__1__k": [0]}, "evaluation.metrics[1].k[0]: Input should be greater"),
        ({"evaluation__metrics__1__k": [1, 1]}, "evaluation.metrics[1].k: a number stands twice"),
        ({"evaluation__alpha": 1e-300}, "evaluation.alpha: Input should be greater"),
        ({"evaluation__alpha": 0.9}, "evaluation.alpha: Input should be less"),
        ({"evaluation__alpha": float("nan")}, "evaluation.alpha: Input should be"),
        ({"cluster": {"cpu": 2}}, "cluster.cpu: unknown key; did you mean 'cpus'?"),
        ({"cluster": None}, "cluster: Input should be a valid dictionary"),
        ({"workflow": 3}, "workflow: Input should be a valid string"),
        ({"tracking": {"type": "mlflo"}}, "tracking.type: unknown tracker 'mlflo'"),
    ],
)
def test_one_error(write: ConfigWriter, changes: dict[str, Any], line: str) -> None:
    (found,) = write.problems(**changes)
    assert found.startswith(line)


def test_seeds_are_so_many_or_those_that_are_named(write: ConfigWriter) -> None:
    assert load_config(write()).trials.seed_numbers == (0, 1, 2)
    named = load_config(write(trials__seeds=[45, 42])).trials
    assert named.seed_numbers == (45, 42)
    assert named.model_dump(mode="json")["seeds"] == [45, 42]
    assert confirmation_plan(load_config(write(trials__seeds=[45, 42]))).seeds == (46, 47)


def test_a_password_is_not_printed(write: ConfigWriter) -> None:
    (line,) = write.problems(tracking={"type": "mlflow", "uri": "ftp://me:secret@host/x"})
    assert "secret" not in line
    assert line.startswith("tracking.uri: 'ftp://***@host/x' is no address")


def test_recursive_yaml_is_bad_input(write: ConfigWriter) -> None:
    path = write(operators=LEFT_OUT)
    with Path(path).open("a") as file:
        file.write("operators: &a [*a]\n")
    with pytest.raises(BadInput, match=r"alias \*a in line \d+, column \d+ stands inside itself"):
        load_config(path)


# The score


def test_the_score_names_metrics_that_there_are(write: ConfigWriter) -> None:
    known = ["zero_shot_colour/top1", "retrieval/image_to_text_r5"]
    assert load_config(write(evaluation__score=known)).evaluation.score == known
    (line,) = write.problems(evaluation__score=[*known, "retrieval/text_to_image_r10"])
    assert line.startswith(
        "evaluation.score: no evaluator gives 'retrieval/text_to_image_r10'; "
        "did you mean 'retrieval/text_to_image_r1'?"
    )
    assert "known: zero_shot_colour/top1, zero_shot_colour/mean_per_class, retrieval/" in line


def test_the_score_counts_no_metric_twice(write: ConfigWriter) -> None:
    score = ["zero_shot_colour/top1"] * 2
    (line,) = write.problems(evaluation__score=score)
    assert line.startswith("evaluation.score: a metric stands twice")


def test_two_evaluators_give_no_metric_of_one_name(write: ConfigWriter) -> None:
    metrics = [{"type": "zero_shot", "label": "colour", "templates": [t]} for t in ("{}", "a {}")]
    (line,) = write.problems(evaluation__metrics=metrics, evaluation__score=["x"])
    assert line.startswith(
        "evaluation.metrics: two evaluators give a metric named 'zero_shot_colour/top1'"
    )


def test_metrics_that_nobody_foresees_are_not_refused(write: ConfigWriter) -> None:
    metrics = [{"type": f"{__name__}:Unforeseen"}, {"type": "retrieval"}]
    assert load_config(write(evaluation__metrics=metrics, evaluation__score=["mine", "other"]))


def test_metrics_of_a_users_evaluator_are_checked_where_it_names_them(write: ConfigWriter) -> None:
    metrics = [{"type": f"{__name__}:Foreseen"}]
    assert load_config(write(evaluation__metrics=metrics, evaluation__score=["mine"]))
    (line,) = write.problems(evaluation__metrics=metrics, evaluation__score=["yours"])
    assert "no evaluator gives 'yours' (known: mine)" in line


# Builders of pools


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        ({"name": "x"}, "pools.extra[0].type: a name is needed, one of: range; or package.module"),
        ({"type": "rnage", "name": "x"}, "pools.extra[0].type: unknown pool builder 'rnage'; did"),
        (
            {"type": "range", "name": "x", "statistic": "text_len", "lwo": 1},
            "pools.extra[0].lwo: unknown key; did you mean 'low'?",
        ),
        ({"type": "range", "name": "x", "low": 1}, "pools.extra[0].statistic: Field required"),
        (
            {"type": "range", "name": "x", "statistic": "text_len"},
            "pools.extra[0]: low or high is needed",
        ),
    ],
)
def test_builders_are_read_with_their_own_section(
    write: ConfigWriter, ask: dict[str, Any], line: str
) -> None:
    assert write.problems(pools={"extra": [ask]})[0].startswith(line)


# --set and --storage


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("trials.seeds=5", "trials.seeds", 5),
        ("name=other", "name", "other"),
        ('name="12"', "name", "12"),
        ("dataset.rows=[2, 5]", "dataset.rows", [2, 5]),
        ("evaluation.metrics.0.label=shape", "evaluation.metrics.0.label", "shape"),
        ("evaluation.metrics[1].k[0]=2", "evaluation.metrics.1.k.0", 2),
        ("dataset.defects.blur=0.01", "dataset.defects.blur", 0.01),
        ("operators.0=words_num_filter", "operators.0", "words_num_filter"),
        ("operators=[words_num_filter]", "operators", ["words_num_filter"]),
        ("pools={buckets: 2}", "pools.buckets", 2),
        ("cluster.cpus=2", "cluster.cpus", 2),
        ("evaluation.score=[zero_shot_colour/top1]", "evaluation.score.0", "zero_shot_colour/top1"),
        ("cluster.address=ray://a:1=2", "cluster.address", "ray://a:1=2"),
        ("scorer=null", "scorer", None),
    ],
)
def test_an_override_replaces_one_value(
    write: ConfigWriter, override: str, path: str, value: Any
) -> None:
    plain = load_config(write()).model_dump(mode="json")
    changed = load_config(write(), [override]).model_dump(mode="json")
    place: Any = changed
    for key in path.split("."):
        place = place[int(key)] if isinstance(place, list) else place[key]
    assert place == value
    section = path.partition(".")[0]
    assert {k: v for k, v in changed.items() if k != section} == {
        k: v for k, v in plain.items() if k != section
    }


def test_the_last_override_counts(write: ConfigWriter) -> None:
    assert load_config(write(), ["trials.seeds=5", "trials.seeds=7"]).trials.seeds == 7


def test_an_override_does_not_reach_through_an_alias(write: ConfigWriter) -> None:
    document = yaml.safe_dump({key: MINIMAL[key] for key in MINIMAL if key != "dataset"})
    shared = "dataset: &shared {type: shapes, samples: 50, seed: 1}\n"
    start = document.index("  dataset:")
    end = document.index("  metrics:")
    text = shared + document[:start] + "  dataset: *shared\n" + document[end:]
    write.path.write_text(text)
    config = load_config(str(write.path), ["dataset.seed=9"])
    assert config.dataset.seed == 9  # type: ignore[attr-defined]
    assert config.evaluation.dataset.seed == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("trials.seeds", "path.to.key=value is needed"),
        ("=5", "path.to.key=value is needed"),
        ("trials.=5", "path.to.key=value is needed"),
        (".trials=5", "path.to.key=value is needed"),
        ("trials..seeds=5", "path.to.key=value is needed"),
        ("evaluation.metrics.2.k=1", "there is no '2' in a list of 2"),
        ("evaluation.metrics.-1.k=1", "there is no '-1' in a list of 2"),
        ("evaluation.metrics.first.k=1", "there is no 'first' in a list of 2"),
        ("evaluation.metrics.²=1", "there is no '²' in a list of 2"),
        ("operators.1=words_num_filter", "there is no '1' in a list of 1"),
        ("name.first=1", "there is no 'first' in 'test'"),
        ("dataset.rows.0=2", "there is no list 'rows' to change; give it whole"),
        ("dataset.rows=[2", "not valid YAML"),
        ("pools={seed: 1, seed: 2}", "the key 'seed' stands twice"),
        ("name=!!python/name:os.system", "not valid YAML"),
    ],
)
def test_a_bad_override_is_bad_input(write: ConfigWriter, override: str, why: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_config(write(), [override])
    assert str(caught.value).startswith(f"--set {override!r}: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trials.sedes=5", "trials.sedes: unknown key; did you mean 'seeds'?"),
        ("no.such.key=1", "no: unknown key"),
        ("trials.seeds=five", "trials.seeds: Input should be a valid integer"),
        ("name=", "name: Input should be a valid string"),
        ("operators.0=nosuch", "operators[0]: unknown operator 'nosuch'"),
        ("operators=null", "operators: Input should be a valid list"),
    ],
)
def test_what_an_override_gives_is_checked(write: ConfigWriter, override: str, line: str) -> None:
    assert write.problems(override)[0].startswith(line)


def test_the_storage_of_the_command_line_counts(write: ConfigWriter) -> None:
    path = write(storage="./a")
    assert load_config(path).storage == "./a"
    assert load_config(path, ["storage=./b"]).storage == "./b"
    assert load_config(path, ["storage=./b"], "s3://c").storage == "s3://c"
    with pytest.raises(BadInput, match="storage: String should have at least 1 character"):
        load_config(path, (), "")


def test_what_is_not_there_is_found_before_anything_runs(write: ConfigWriter) -> None:
    problems = write.problems(
        operators=[{"image_text_similarity_filter": {"hf_clip": "./nowhere"}}],
        trials={"model": {"type": "clip", "arch": "tinny", "betas": [0.9, 1.5]}, "budget": True},
    )
    text = "\n".join(map(str, problems))
    assert "operators[0].image_text_similarity_filter: needs " in text
    assert "./nowhere" in text
    assert "did you mean 'tiny'" in text
    assert "trials.model.betas[1]" in text
    assert "trials.budget" in text


def test_what_is_better_when_less_cannot_be_summed(write: ConfigWriter) -> None:
    metrics = [{"type": f"{__name__}:Falling"}]
    falling: dict[str, Any] = {"evaluation__metrics": metrics}
    (line,) = write.problems(**falling, evaluation__aggregate="pooled")
    assert "evaluation.aggregate: 'pooled' sums the metrics, but mine is better when less" in line
    config = load_config(write(**falling, evaluation__aggregate="standardized"))
    score = config.evaluation.score_metrics()
    assert score.chosen(("mine", "shown")) == ("mine",)
    assert score.sign("mine") == -1


def test_a_score_of_nothing_is_told(write: ConfigWriter) -> None:
    metrics = [{"type": f"{__name__}:OnlyShown"}]
    (line,) = write.problems(evaluation__metrics=metrics)
    assert "no metric is part of the score by default: name some as 'score'" in line
    named = load_config(write(evaluation__metrics=metrics, evaluation__score=["shown"]))
    assert named.evaluation.score == ["shown"]
