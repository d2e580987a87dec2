from __future__ import annotations

import pytest

from djsandbox_ray.dataset.prepare import check
from djsandbox_ray.dataset.source import Sample


def test_a_good_sample_passes(jpeg) -> None:
    assert check(Sample(jpeg(0), "caption", "a#0", {"label": 1})) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": ""}, "empty_caption"),
        ({"text": " \n\u2003"}, "empty_caption"),
        ({"text": None}, "bad_text"),
        ({"text": 7}, "bad_text"),
        ({"text": "half a pair \ud800"}, "bad_text"),
        ({"image": None}, "missing_image"),
        ({"image": b"no image"}, "bad_image"),
        ({"meta": None}, "bad_meta"),
        ({"meta": {"x": float("nan")}}, "bad_meta"),
        ({"meta": {"x": b"bytes"}}, "bad_meta"),
        ({"meta": {"x": "\ud800"}}, "bad_meta"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_a_reason(jpeg, change, reason) -> None:
    good = {"image": jpeg(0), "text": "caption", "source": "a#0", "meta": {}}
    rejection = check(Sample(**(good | change)))
    assert rejection is not None
    assert (rejection.source, rejection.reason) == ("a#0", reason)
    assert rejection.detail


def test_a_truncated_image_is_rejected(jpeg) -> None:
    image = jpeg(0, side=128)
    rejection = check(Sample(image[: len(image) // 2], "caption", "a#0"))
    assert rejection is not None
    assert rejection.reason == "bad_image"
    assert "truncated" in rejection.detail
