from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from djsandbox_ray.dataset.source import IngestConfig
from djsandbox_ray.nodes.kinds import NodeKind, bundle
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
