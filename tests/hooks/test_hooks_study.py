"""A study beside other drivers of its run: what one that was taken over does not do any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import lost_lease
from planted_world import context_of

from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.storage.lease import Lost
from djsandbox_ray.storage.store import Storage


@pytest.fixture
def context(storage: Storage) -> Context:
    return context_of(storage)[0]


def test_who_was_taken_over_while_it_waited_for_nodes_does_not_go_on(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.hooks.hook.await_room", lambda *_: None)
    context.await_room([{"CPU": 1}], "trials.resources")
    lost = replace(context, lease=lost_lease(context.storage, "planted"))
    with pytest.raises(Lost):
        lost.await_room([{"CPU": 1}], "trials.resources")
