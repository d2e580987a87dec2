from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.dataset.writers.formats import SHARD_FORMATS
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.pools.builder import BUILDERS
from djsandbox_ray.recipes.refiner import REFINERS
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.trials.stopping.stopping import STOPPING
from djsandbox_ray.trials.strategies.strategy import STRATEGIES
from djsandbox_ray.trials.t2v.rewards import REWARDS


class Animal(ABC):
    @abstractmethod
    def sound(self) -> str: ...


class Dog(Animal):
    def sound(self) -> str:
        return "wuff"


class Mute(Animal):
    pass


not_a_class = Dog()
BUILT_IN = [
    BUILDERS,
    EVALUATORS,
    FAMILIES,
    HOOKS,
    REFINERS,
    REWARDS,
    SHARD_FORMATS,
    SOURCES,
    STOPPING,
    STRATEGIES,
    TRACKERS,
]


@pytest.fixture
def animals() -> Registry[Animal]:
    place = f"{__name__}:Dog"
    return Registry("animal", Animal, {"dog": place, "cat": place})  # type: ignore[type-abstract]


def test_names_are_listed_in_order(animals: Registry[Animal]) -> None:
    assert list(animals) == ["cat", "dog"]
    assert animals.get("dog") is Dog


@pytest.mark.parametrize("registry", BUILT_IN, ids=lambda registry: registry.kind)
def test_every_built_in_name_stands_for_a_class_that_can_serve(registry: Registry[object]) -> None:
    assert list(registry)
    for name in registry:
        assert issubclass(registry.get(name), registry.base)


def test_an_unknown_name_lists_the_known_and_the_nearest(animals: Registry[Animal]) -> None:
    with pytest.raises(BadInput) as caught:
        animals.get("dogg")
    assert "unknown animal 'dogg'; did you mean 'dog'?" in str(caught.value)
    assert "known: cat, dog" in str(caught.value)
    with pytest.raises(BadInput) as caught:
        animals.get("")
    assert "did you mean" not in str(caught.value)


def test_a_users_own_class_is_found_by_its_place(animals: Registry[Animal]) -> None:
    assert animals.get(f"{__name__}:Dog") is Dog


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{__name__}:Cat", "has no attribute 'Cat'"),
        (f"{__name__}:", "has no attribute ''"),
        (f"{__name__}:Dog:Dog", "has no attribute"),
        (f"{__name__}:not_a_class", "is not a subclass of Animal"),
        ("pathlib:Path", "is not a subclass of Animal"),
        (f"{__name__}:Mute", "does not define sound"),
        (f"{__name__}:Animal", "does not define sound"),
        ("no.such.module:Dog", "No module named 'no'"),
        (":Dog", "cannot be imported"),
        (".relative:Dog", "cannot be imported"),
    ],
)
def test_a_class_that_cannot_serve_is_bad_input(
    animals: Registry[Animal], name: str, why: str
) -> None:
    with pytest.raises(BadInput) as caught:
        animals.get(name)
    assert f"animal {name!r}" in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [("def x(:", "SyntaxError"), ("undefined", "NameError"), ("import nosuch", "nosuch")],
)
def test_a_module_that_breaks_is_bad_input(
    animals: Registry[Animal],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    why: str,
) -> None:
    (tmp_path / "broken_animals.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=why):
        animals.get("broken_animals:Dog")
