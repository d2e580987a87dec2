"""What a range means to every filter of Data-Juicer: its own decision, run."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.ranges import UNBOUNDED, applied, kept, thresholds, to_process
from djsandbox_ray.records import Range
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.catalogue import catalogue
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.operators import OperatorSpec, parse_process

USABLE = [info for info in catalogue() if info.obstacle is None]
NO_RANGE = {
    "general_field_filter",
    "image_subplot_filter",
    "llm_analysis_filter",
    "llm_condition_filter",
    "text_entity_dependency_filter",
    "video_face_ratio_filter",
}
ONE_THRESHOLD = {
    "image_watermark_filter": "prob_threshold",
    "language_id_score_filter": "min_score",
    "text_action_filter": "min_action_num",
    "video_watermark_filter": "prob_threshold",
}
VALUES = np.array([0.0, 1.0, 2.0, 5.0, 9.0, 10.0, 11.0, 400.0, 0.125, 0.25, 0.75, 1.5, np.nan])
WHOLE = VALUES[:8]


def built(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build an operator without its model, which has no part in its decision."""
    ((name, params),) = entry.items()
    cls = load().filters[name]
    for module in inspection.modules(cls):
        for loader in ("prepare_model", "load_words_asset"):
            if hasattr(module, loader):
                monkeypatch.setattr(module, loader, lambda *_, **__: {"en": []})
        if hasattr(module, "easyocr"):
            monkeypatch.setattr(module, "easyocr", MagicMock())
    return cls(auto_op_parallelism=False, **params)


def decided(operator: Any, spec: OperatorSpec, values: np.ndarray) -> list[bool]:
    """Have an operator decide about rows whose statistics all are these values, one per row."""
    as_list = "any_or_all" in inspection.parameters(spec.filter_class)
    stats = [
        {**{key: [v] if as_list else v for key in spec.keys}, "lang": "xx"}
        for v in (int(v) if v.is_integer() else float(v) for v in values)
    ]
    return [bool(kept) for kept in operator.process_batched({load().stats_field: stats})]


def ranges_of(name: str, key: str) -> list[Range]:
    open_ones = [Range(key, 1.0, None), Range(key, None, 10.0), Range(key, None, None)]
    open_ones += [Range(key, 0.25, None), Range(key, None, 0.75)]
    return open_ones if name in ONE_THRESHOLD else [*open_ones, Range(key, 1.0, 10.0)]


@pytest.mark.parametrize("name", [info.name for info in USABLE if info.name not in NO_RANGE])
def test_every_filter_keeps_the_range(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"cv_classifier": "faces.xml"} if "image_face" in name else {}
    params |= {"text_key_second": "meta.title"} if "text_pair" in name else {}
    spec = OperatorSpec(name, params)
    counts = any("num" in key or "count" in key or "len" in key for key in spec.keys)
    values = WHOLE if counts or "size" in name or "shape" in name else VALUES
    for key in spec.keys:
        for wanted in ranges_of(name, key):
            (entry,) = to_process([spec], [wanted])
            if "reversed_range" in entry[name]:
                values = values[~np.isnan(values)]  # reversed, Data-Juicer keeps what is no number
            found = decided(built(entry, monkeypatch), spec, values)
            (real,) = applied([spec], [wanted])
            assert found == kept({key: values}, [real]).tolist(), (entry, real)
            if values is WHOLE:  # rounding bounds changes nothing for counts
                assert found == kept({key: values}, [wanted]).tolist(), entry
            # What is written can be read again, and nothing is left to Data-Juicer's defaults.
            parse_process([entry])
            assert {"min", "max"} >= {p[:3] for p in entry[name]} - {
                "pro",
                "rev",
                "lan",
                "cv_",
                "tex",
            }


@pytest.mark.parametrize("name", sorted(NO_RANGE))
def test_filters_that_cannot_keep_a_range_say_so(name: str) -> None:
    spec = OperatorSpec(name)
    with pytest.raises(BadInput, match=f"{name} cannot keep a range of {spec.keys[0]}"):
        to_process([spec], [Range(spec.keys[0], 0.0, 1.0)])


@pytest.mark.parametrize(("name", "threshold"), ONE_THRESHOLD.items())
@pytest.mark.parametrize(("low", "high"), [(1.0, 9.0), (2.0, 2.0)])
def test_one_threshold_bounds_two_sides_one_after_the_other(
    name: str, threshold: str, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = OperatorSpec(name)
    wanted = Range(spec.keys[0], low, high)
    entries = to_process([spec], [wanted])
    assert sorted(entry[name][threshold] for entry in entries) == [low, high]
    assert [entry[name].get("reversed_range", False) for entry in entries].count(True) == 1
    decisions = [decided(built(entry, monkeypatch), spec, WHOLE) for entry in entries]
    assert np.all(decisions, axis=0).tolist() == kept({wanted.statistic: WHOLE}, [wanted]).tolist()


def test_a_new_filter_without_thresholds_is_noticed() -> None:
    """Every filter that is not listed has a threshold that bounds just its statistic."""
    for info in USABLE:
        spec = OperatorSpec(info.name)
        for key in spec.keys if info.name not in NO_RANGE else ():
            pair = thresholds(spec, key)
            assert (pair.low is None or pair.high is None) == (info.name in ONE_THRESHOLD)


def test_parameters_stay_and_thresholds_are_replaced() -> None:
    specs = parse_process(
        [
            {"word_repetition_filter": {"rep_len": 3, "min_ratio": 0.2, "max_ratio": 0.3}},
            {"image_shape_filter": {"min_width": 77, "any_or_all": "all"}},
            {"text_length_filter": {"min_len": 4, "reversed_range": True}},
            "alphanumeric_filter",
            {"image_size_filter": {"max_size": "5MB"}},
        ]
    )
    process = to_process(
        specs,
        [
            Range("image_width", 32.0, None),
            Range("word_rep_ratio", None, 0.125),
            Range("text_len", 10.2, 64.0),
            Range("image_sizes", None, 2048.5),
        ],
    )
    assert process == [
        {"word_repetition_filter": {"rep_len": 3, "min_ratio": -UNBOUNDED, "max_ratio": 0.125}},
        {
            "image_shape_filter": {
                "any_or_all": "all",
                "min_height": 0,
                "max_height": UNBOUNDED,
                "min_width": 32,
                "max_width": UNBOUNDED,
            }
        },
        {"text_length_filter": {"min_len": 11, "max_len": 64}},
        {"image_size_filter": {"min_size": "0", "max_size": "2048"}},
    ]


def test_what_cannot_be_meant_is_refused() -> None:
    specs = parse_process(
        [
            "text_length_filter",
            {"character_repetition_filter": {"rep_len": 3}},
            {"character_repetition_filter": {"rep_len": 5}},
        ]
    )
    short, long = "char_rep_ratio[rep_len=3]", "char_rep_ratio[rep_len=5]"
    assert len(to_process(specs, [Range(long, 0.0, 0.5)])) == 1
    cases = {
        "two operators of the recipe write char_rep_ratio": [
            Range(short, 0.0, 0.5),
            Range(long, 0.0, 0.5),
        ],
        "unknown statistic 'text_length'; did you mean 'text_len'": [Range("text_length", 1, 2)],
        "two ranges": [Range("text_len", 1, 2), Range("text_len", 3, 4)],
        "is empty": [Range("text_len", 3, 2)],
        "a finite number": [Range("text_len", math.nan, None)],
        "no range": [],
    }
    for message, ranges in cases.items():
        with pytest.raises(BadInput, match=message):
            to_process(specs, ranges)
    with pytest.raises(BadInput, match="no range"):
        kept({}, [])
    with pytest.raises(BadInput, match="unknown statistic 'x'"):
        kept({"text_len": VALUES}, [Range("x", 0, 1)])


def test_only_rows_within_all_ranges_are_kept() -> None:
    columns = {"a": np.array([1.0, 2.0, 3.0, np.nan]), "b": np.array([1.0, np.nan, 3.0, 4.0])}
    both = [Range("a", 1.0, 3.0), Range("b", None, None)]
    assert kept(columns, both).tolist() == [True, False, True, False]
