from __future__ import annotations

from itertools import count

import pytest
import ray
from ray.exceptions import RpcError
from ray.util import placement_group_table

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.nodes import waiting
from djsandbox_ray.nodes.waiting import (
    AUTOSCALER_SECONDS,
    Absence,
    await_room,
    foreseen,
    has_autoscaler,
    seconds_to_wait,
)

SMALL, ABSENT = [{"CPU": 1.0}], [{"CPU": 1.0, "trial_node": 0.001}]


def test_where_there_is_room_nothing_is_waited_for(ray_cluster: None) -> None:
    said: list[str] = []
    await_room(SMALL, "trials.resources", 60, said.append)
    assert said == []
    assert foreseen(SMALL, "trials.resources", 60) == ""


def test_without_waiting_what_has_no_room_is_an_error_at_once(ray_cluster: None) -> None:
    said: list[str] = []
    for wait in (0, None):  # no autoscaler: nothing will come
        with pytest.raises(BadInput, match=r"asks for 1 x \(1 CPU, 0.001 trial_node\) at once"):
            await_room(ABSENT, "trials.resources", wait, said.append)
        with pytest.raises(BadInput, match=r"^trials\.resources asks for"):
            foreseen(ABSENT, "trials.resources", wait)
    assert said == []


def test_nodes_that_do_not_come_are_an_error_at_the_limit(ray_cluster: None) -> None:
    said: list[str] = []
    with pytest.raises(BadInput, match=r"2 CPUs\); no others came in 1 s \(cluster\.wait\)"):
        await_room(ABSENT, "trials.resources", 1, said.append)
    assert said[0] == "nodes for 1 x (1 CPU, 0.001 trial_node), 0 s of 1 s"
    assert said[-1] == ""  # the progress line waits for nothing any more
    states = {group["state"] for group in placement_group_table().values()}
    assert "PENDING" not in states  # nor does the cluster


def test_what_will_be_waited_for_is_said_ahead(ray_cluster: None) -> None:
    said = foreseen(ABSENT, "trials.resources", 180)
    assert said.startswith("trials.resources asks for 1 x (1 CPU, 0.001 trial_node)")
    assert "3 min at most" in said


def test_a_cluster_without_an_autoscaler_is_known(ray_cluster: None) -> None:
    assert not has_autoscaler()
    assert seconds_to_wait(None) == 0
    assert seconds_to_wait(7) == 7


def test_with_an_autoscaler_waiting_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "djsandbox_ray.nodes.waiting._node_types", lambda: ["node_ab", "head-group"]
    )
    assert has_autoscaler()
    assert seconds_to_wait(None) == AUTOSCALER_SECONDS
    assert seconds_to_wait(0) == 0


def test_a_ray_that_does_not_tell_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> list[str]:
        raise ImportError("of another version")

    monkeypatch.setattr("djsandbox_ray.nodes.waiting._node_types", gone)
    assert not has_autoscaler()


def test_a_head_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    away = iter([RpcError("unavailable"), ConnectionError(), RpcError("unavailable")])

    def asked() -> list[str]:
        if (error := next(away, None)) is not None:
            raise error
        return ["head-group"]

    monkeypatch.setattr(waiting, "_node_types", asked)
    monkeypatch.setattr(waiting, "_TICK", 0.01)
    assert seconds_to_wait(None) == AUTOSCALER_SECONDS
    assert next(away, None) is None


def test_a_head_that_stays_away_is_no_fault_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone() -> list[str]:
        raise RpcError("unavailable")

    monkeypatch.setattr(waiting, "_node_types", gone)
    monkeypatch.setattr(waiting, "HEAD_PATIENCE", 0)
    with pytest.raises(SandboxError, match=r"does not answer .*\(RpcError\).*goes on") as caught:
        seconds_to_wait(None)
    assert not isinstance(caught.value, BadInput)
    assert seconds_to_wait(7) == 7


def test_nodes_that_a_group_has_lost_are_waited_for_anew_each_time(ray_cluster: None) -> None:
    clock = count(0, 50)
    absence = Absence(120, lambda: next(clock))
    assert absence.waited_for(ABSENT).endswith("0 s of 2 min")
    assert absence.waited_for(ABSENT).endswith("50 s of 2 min")
    assert absence.waited_for(SMALL).startswith("1 CPUs")  # there again, though others use it
    assert absence.waited_for(ABSENT).endswith("0 s of 2 min")
    absence.over()
    assert absence.waited_for(ABSENT).endswith("0 s of 2 min")
    assert absence.waited_for(ABSENT).endswith("50 s of 2 min")
    assert absence.waited_for(ABSENT).endswith("100 s of 2 min")
    with pytest.raises(SandboxError, match=r"gone.*in 2 min.*same command") as caught:
        absence.waited_for(ABSENT)
    assert not isinstance(caught.value, BadInput)


def test_nodes_lost_are_not_waited_for_unless_told(ray_cluster: None) -> None:
    with pytest.raises(SandboxError, match="are gone"):
        Absence(None).waited_for(ABSENT)
    assert ray.is_initialized()
