from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.dataset.source import IngestConfig
from djsandbox_ray.nodes.kinds import NodeKind, bundle
from djsandbox_ray.nodes.packing import groups_that_fit, in_words
from djsandbox_ray.stats.compute import StatisticsConfig
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.gang import bundles

CPU_NODES = NodeKind(custom={"cpu_node": 0.001})


def test_any_node_will_do_by_default() -> None:
    assert NodeKind().demand() == {}
    assert bundle(0.5, 0, NodeKind()) == {"CPU": 0.5}
    assert StatisticsConfig().group() == [{"CPU": 0.5}]
    assert IngestConfig().resources == NodeKind()


def test_every_worker_of_a_trial_asks_for_its_kind_of_node() -> None:
    resources = Resources(
        workers=2, gpus_per_worker=1, accelerator_type="H100", custom={"trial_node": 0.001}
    )
    one = {"CPU": 1, "GPU": 1, "accelerator_type:H100": 0.001, "trial_node": 0.001}
    assert bundles(resources) == [one, one]


def test_so_does_every_actor_of_the_statistics() -> None:
    settings = StatisticsConfig(actors=3, resources=CPU_NODES)
    assert settings.group() == [{"CPU": 0.5, "cpu_node": 0.001}] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"custom": {"CPU": 1}}, "'CPU' is Ray's own"),
        ({"custom": {"memory": 1e9}}, "'memory' is Ray's own"),
        ({"custom": {"accelerator_type:A100": 1}}, "use the key accelerator_type"),
        ({"custom": {"": 1}}, "is no custom resource"),
        ({"custom": {"trial_node": 0}}, "trial_node: at least 0.0001 is needed, not 0"),
        ({"custom": {"trial_node": 0.00001}}, "at least 0.0001"),
        ({"custom": {"trial_node": "many"}}, "valid number"),
        ({"accelerator_type": "two words"}, "pattern"),
        ({"accelerator": "H100"}, "Extra inputs"),
    ],
)
def test_what_is_no_kind_of_node_is_an_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        NodeKind.model_validate(given)


TWO = {"CPU": 2.0, "memory": 1e9}
GPUS = {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("bundles", "nodes", "count"),
    [
        ([{"CPU": 1, "GPU": 0}], [TWO], 2),
        ([{"CPU": 0.1}], [TWO], 20),  # exact where 0.1 * 3 != 0.3
        ([{"CPU": 2}] * 3, [TWO] * 7, 2),  # a group over several nodes
        ([{"CPU": 3}], [TWO, TWO], 0),  # a bundle never is
        ([{"CPU": 1, "GPU": 1}], [TWO], 0),
        ([{"CPU": 1, "GPU": 0.5}], [GPUS], 4),
        ([{"CPU": 1, "GPU": 0.6}], [GPUS], 2),  # not 3: a fraction is of one GPU
        ([{"GPU": 2}], [GPUS, {"GPU": 1}], 1),
        ([{"GPU": 0.5}, {"GPU": 1}], [GPUS], 1),
        ([{"GPU": 0.5}], [{"GPU": 1.5}], 3),
        ([{"CPU": 0.01}, {"CPU": 1}, {"CPU": 1}], [TWO], 0),
        ([{"CPU": 0.01}, {"CPU": 1}, {"CPU": 1}], [TWO, {"CPU": 0.5}], 1),
        ([{"CPU": 1, "special": 1}], [TWO, {"CPU": 1, "special": 1}], 1),
        ([{"CPU": 1}], [], 0),
    ],
)
def test_groups_that_fit(
    bundles: list[dict[str, float]], nodes: list[dict[str, float]], count: int
) -> None:
    assert groups_that_fit(bundles, nodes) == count
    assert groups_that_fit(bundles, nodes, most=1) == min(count, 1)


@pytest.mark.parametrize("bundles", [[], [{}], [{"CPU": 0}]])
def test_a_group_that_asks_for_nothing_is_an_error(bundles: list[dict[str, float]]) -> None:
    with pytest.raises(ValueError, match="asks for nothing"):
        groups_that_fit(bundles, [TWO])


CPUS = st.integers(1, 12).map(lambda quarters: quarters / 4)


@given(CPUS, st.integers(1, 5), st.lists(CPUS, max_size=5), st.booleans())
def test_equal_bundles_with_a_small_one_are_counted_exactly(
    cpus: float, workers: int, nodes: list[float], head: bool
) -> None:
    group = [{"CPU": cpus}] * workers + [{"CPU": 0.01}] * head
    places = sum(int(node / cpus) for node in nodes)
    if not head:
        assert groups_that_fit(group, [{"CPU": node} for node in nodes]) == places // workers
        return
    # Every way to spread the workers over nodes: some way leaves room for the head?
    room = any(
        sum(chosen) == workers
        and any(node - n * cpus >= 0.01 for node, n in zip(nodes, chosen, strict=True))
        for chosen in product(*(range(int(node / cpus) + 1) for node in nodes))
        if sum(chosen) == workers
    )
    assert groups_that_fit(group, [{"CPU": node} for node in nodes], most=1) == room


def test_in_words() -> None:
    group = [{"CPU": 0.01}, {"CPU": 2, "GPU": 1.0}, {"CPU": 2, "GPU": 1.0}]
    assert in_words(group) == "1 x (0.01 CPUs) and 2 x (2 CPUs, 1 GPU)"
    assert in_words([{"memory": 1.0, "node:10.0.0.1": 1.0}]) == "1 x (no CPUs)"
    node = {"accelerator_type:H100": 1.0, "CPU": 8.0, "GPU": 1.0, "memory": 1e9, "trial_node": 1.0}
    assert in_words([node]) == "1 x (8 CPUs, 1 GPU, 1 accelerator_type:H100, 1 trial_node)"
