"""A user's class that was edited is another one; built-in ones are what they were."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import minimal_document
from rich.console import Console

from djsandbox_ray.config import checked
from djsandbox_ray.dataset.source import SOURCES, stamp_of
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.zero_shot import ZeroShot
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.hooks.pools import BuildPools
from djsandbox_ray.hooks.study import configured_family, study_identity
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.code import codes_in, is_users, version_of, with_code
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.family import FAMILIES, ModelFamily, identity_of
from djsandbox_ray.trials.stopping.stopping import STOPPING
from djsandbox_ray.workflows.language.parameters import resolve
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.opened import open_context
from djsandbox_ray.workflows.runner import artifact_of

MODULE = """
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.evaluation.evaluator import Evaluator
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.pools.builder import PoolBuilder
from djsandbox_ray.recipes.refiner import Refiner
from djsandbox_ray.trials.family import ModelFamily
from djsandbox_ray.trials.stopping.stopping import Stopping

class Data(Source):{version}
    def shards(self): return []

class Metric(Evaluator):{version}
    def evaluate(self, encoder, split): return {{"m": {number}}}

class Family(ModelFamily):{version}
    def train(self, task, shared): yield {number}

class Builder(PoolBuilder):{version}
    def build(self, row_ids, columns): return {{"all": row_ids >= {number}}}

class Stopper(Stopping):{version}
    def scheduler(self, competition): return {number}

class Method(Refiner):{version}
    def propose(self, evidence): return ()

class Job(Hook):{version}
    def run(self, method: dict = {{"type": "model_feedback"}}) -> None: pass
"""

Write = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Give a function that writes a user's module and imports it, as the next run would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def written(name: str, text: str, **values: Any) -> Any:
        (tmp_path / f"{name}.py").write_text(text.format(**values) if values else text)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield written
    for name in ("users_own", "users_base"):
        sys.modules.pop(name, None)


def user(write: Write, number: int = 1, version: int | None = None) -> None:
    own = "" if version is None else f"\n    VERSION = {version}"
    write("users_own", MODULE, number=number, version=own)


def _context(folder: Path) -> Context:
    jobs = [{"id": "one", "hook": "users_own:Job"}, {"id": "two", "hook": "ingest"}]
    stopping = {"type": "users_own:Stopper", "rungs": [0.5]}
    document = minimal_document(
        dataset={"type": "users_own:Data"},
        trials__model={"type": "users_own:Family"},
        trials__early_stopping=stopping,
        evaluation__metrics=[{"type": "users_own:Metric"}],
        pools__extra=[{"type": "users_own:Builder", "name": "mine"}],
        workflow={"jobs": jobs},
        storage=str(folder),
        tracking={"type": "none"},
    )
    config = checked(document, "test")
    return open_context(config, Progress(Console(file=io.StringIO())))


def ids(folder: Path) -> dict[str, Any]:
    """Return all that stands for users' classes in ids."""
    context = _context(folder)
    config = context.config
    split = EvaluationSet("split", "nowhere", 1, ("a",), ({},))
    return {
        "source": stamp_of(SOURCES.get(config.dataset.type)(config.dataset)),
        "evaluator": Suite(config.evaluation.metrics, [split]).identity(),
        "family": identity_of(configured_family(config), gpus=0),
        "stopping": study_identity(config)[1],
        "study": study_identity(config),
        "builder": BuildPools(context).identity(),
        "ingest": HOOKS.get("ingest")(context).identity(),
        "trusted": HOOKS.get("ingest_evaluation")(context).identity(),
        "jobs": [_job_id(job, context) for job in configured_workflow(config).jobs],
        "refiner": codes_in({"method": {"type": "users_own:Method"}}),
    }


def _job_id(job: Any, context: Context) -> str:
    return artifact_of(job, context, resolve(job, {}))


def test_what_was_edited_is_something_else(write: Write, tmp_path: Path) -> None:
    user(write, 1)
    before = ids(tmp_path)
    user(write, 1)
    assert ids(tmp_path) == before, "the same text is the same class"
    user(write, 2)
    after = ids(tmp_path)
    assert [name for name in before if before[name] == after[name]] == []


def test_a_version_of_its_own_stands_for_a_class(write: Write, tmp_path: Path) -> None:
    user(write, 1, version=7)
    before = ids(tmp_path)
    user(write, 2, version=7)
    assert ids(tmp_path) == before
    user(write, 2, version=8)
    after = ids(tmp_path)
    assert [name for name in before if before[name] == after[name]] == []


def test_a_base_in_another_file_counts_too(write: Write) -> None:
    base = (
        "from djsandbox_ray.trials.family import ModelFamily\nclass Base(ModelFamily):\n  x = {x}"
    )
    own = "import users_base\nclass Own(users_base.Base):\n  def train(self, task, shared): ..."
    found = []
    for number in (1, 2):
        write("users_base", base, x=number)
        found.append(version_of(write("users_own", own).Own))
    assert found[0] != found[1]


def test_the_version_of_a_base_is_not_that_of_its_heir(write: Write) -> None:
    own = "from djsandbox_ray.evaluation.zero_shot import ZeroShot\nclass Own(ZeroShot): x = {x}"
    first = version_of(write("users_own", own, x=1).Own)
    assert first != version_of(write("users_own", own, x=2).Own)
    assert first[0] == ZeroShot.VERSION  # which changes the heir's, too


@pytest.mark.parametrize("registry", [EVALUATORS, FAMILIES, HOOKS, SOURCES, STOPPING])
def test_built_in_classes_are_what_they_were(registry: Any) -> None:
    for name in registry:
        kind = registry.get(name)
        assert not is_users(kind)
        assert version_of(kind) == getattr(kind, "VERSION", None)
        assert with_code(["id"], kind) == ["id"]
    assert codes_in({"method": {"type": "model_feedback"}, "n": [1, {"type": "no:thing"}]}) == []


def test_a_class_without_a_file_needs_a_version() -> None:
    body = {"Config": Component, "__module__": "nowhere"}
    with pytest.raises(BadInput, match="nowhere:Typed cannot be read: give the class a VERSION"):
        version_of(type("Typed", (ModelFamily,), body))
    assert version_of(type("Typed", (ModelFamily,), {**body, "VERSION": 3})) == 3
