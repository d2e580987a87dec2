"""What MME and POPE take for yes and no."""

from __future__ import annotations

import pytest

from djsandbox_ray.evaluation.vqa.yes_no import is_plain, of_mme, of_pope, strictly


@pytest.mark.parametrize(
    ("said", "mme", "pope", "strict", "plain"),
    [
        ("Yes", "yes", "yes", "yes", True),
        ("no", "no", "no", "no", True),
        ("Yes.", "yes", "yes", None, True),
        ("No, there is not.", "no", "no", None, True),
        (" no \n", "no", "no", "no", True),
        ("", None, "yes", None, False),
        ("NO", "no", "yes", "no", True),
        ("Nope", "no", "yes", None, False),
        ("Not at all", "no", "yes", None, True),
        ("There is no car.", None, "no", None, True),
        ("There is one. No other", None, "yes", None, False),
        ("None", "no", "yes", None, False),
        ("Know", "no", "yes", None, False),
        ("Answer: no", None, "no", None, True),
        ("a yes", None, "yes", None, True),
        ("the car is", None, "yes", None, False),
        ("No\nIt is", "no", "yes", None, True),
    ],
)
def test_every_rule_has_its_slips(
    said: str, mme: str | None, pope: str, strict: str | None, plain: bool
) -> None:
    assert (of_mme(said), of_pope(said), strictly(said)) == (mme, pope, strict)
    assert is_plain(said) is plain
