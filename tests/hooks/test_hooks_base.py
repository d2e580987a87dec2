"""What trials start from is made once, and again where its files are not what was made."""

from __future__ import annotations

from pathlib import Path

import pytest
from damages import DAMAGES
from grounded_world import MADE, grounded_context

from djsandbox_ray.hooks.base import MakeBase
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.foundation import broken_base


@pytest.mark.parametrize("name", ["tables.json", "base.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_a_base_is_mended(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, damage: str, name: str
) -> None:
    context = grounded_context(storage, monkeypatch)
    MADE.clear()
    first = MakeBase(context).run()
    assert MakeBase(context).run() == first
    assert MADE == ["named"]
    path = f"{first.base}/{name}"
    before = storage.read_bytes(path)
    DAMAGES[damage](Path(storage.uri(path)))
    assert path in MakeBase(context).broken(first)
    assert [*broken_base(storage, first.base)] == [path]
    assert MakeBase(context).run() == first
    assert MADE == ["named"] * 2
    assert storage.read_bytes(path) == before
    assert broken_base(storage, first.base) == {}
