"""What fails in a task is told in words, and where it failed is kept."""

from __future__ import annotations

import pickle
import traceback
from typing import Any

from djsandbox_ray.dataset.tasks import _timed
from djsandbox_ray.errors import BadInput, SandboxError


def broken(row: dict[str, Any], *, place: str) -> dict[str, Any]:
    return {"found": row[place]}


def refusing(row: dict[str, Any]) -> dict[str, Any]:
    raise BadInput("the column is missing")


def test_a_defect_keeps_where_it_was_raised() -> None:
    error = pickle.loads(_timed({}, function=broken, place="nowhere")["result"])
    assert isinstance(error, SandboxError)
    assert str(error) == "broken: KeyError: 'nowhere'"
    told = "".join(traceback.format_exception(error))
    assert "in broken" in told
    assert 'return {"found": row[place]}' in told


def test_what_is_said_in_words_comes_as_it_is() -> None:
    error = pickle.loads(_timed({}, function=refusing)["result"])
    assert (type(error), str(error)) == (BadInput, "the column is missing")
    assert not hasattr(error, "__notes__")
    assert pickle.loads(_timed({"a": 1}, function=broken, place="a")["result"]) == {"found": 1}
