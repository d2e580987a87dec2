"""Documents that would take all memory or minutes end in a message at once."""

from __future__ import annotations

import contextlib
import resource
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.settings.strict_yaml import (
    DEEPEST,
    MOST_BYTES,
    MOST_NUMBER,
    MOST_VALUES,
    NotStrict,
    load,
)


def bomb(levels: int = 12, wide: int = 9, merged: bool = False) -> str:
    """Return the billion laughs: every level holds the one before, many times."""
    lines = ["a0: &a0 {x: lol}" if merged else "a0: &a0 [lol, lol]"]
    for level in range(1, levels):
        before = ", ".join([f"*a{level - 1}"] * wide)
        lines.append(
            f"a{level}: &a{level} {{<<: [{before}]}}"
            if merged
            else f"a{level}: &a{level} [{before}]"
        )
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (bomb(), r"more than 50,000 values up to line \d+"),
        (bomb(merged=True), r"more than 50,000 values up to line \d+"),
        ("a: &a\n  b: *a", r"alias \*a in line 2, column 6 stands inside itself"),
        ("&a [[*a]]", "stands inside itself"),
        ("a: " + "[" * 10_000 + "]" * 10_000, "nested too deeply: more than 50 levels in line 1"),
        ("\n".join("  " * level + "a:" for level in range(400)), "nested too deeply"),
        ("[" * 900_000, "nested too deeply"),
        ("{" * 900_000, "nested too deeply"),
        ("- " * 400_000, "nested too deeply"),
        ("[" + "a," * 400_000 + "]", "more than 50,000 values"),
        ("x" * (MOST_BYTES + 1), "it has 1,048,577 bytes, 1,048,576 at most"),
        ("é" * (MOST_BYTES // 2 + 1), "it has 1,048,578 bytes"),
        ("x" * 100_000_000, "it has 100,000,000 bytes"),
        ("a: 1" + "0" * 60, "a number of 61 characters in line 1"),
        ("a: " + "1:" * 200_000 + "1", "a number of 400,001 characters"),
        ("a: 1" + "0" * 60 + ".0", "a number of 63 characters in line 1"),
        (
            "\na: 9223372036854775808",
            "number 9223372036854775808 in line 2, column 4: no more",
        ),
        ("a: -9223372036854775808", "in line 1"),
        ('a: "x\\0y"', "a control character, '.x00', near line 1"),
        ('a:\n- "\\e[31m"', "a control character, '.x1b', near line 2"),
        ('"a\\ab": 1', "a control character"),
        ('a: "\\ud800"', "invalid Unicode"),
        ("a: \ud800", "surrogates not allowed"),
        ("a: !!bool maybe", "does not fit its tag"),
        ("a: 12:30:00", "12:30:00 in line 1, column 4 is the number 45000 to YAML 1.1"),
        ("a: 1:30.5", "is the number 90.5 to YAML 1.1"),
        ("a: -010", "-010 in line 1, column 4 is the number -8 to YAML 1.1"),
        ("007: a", "is the number 7 to YAML 1.1, and a text to others"),
        ("a: !!int ''", "does not fit its tag"),
        ("a: !!float ''", "does not fit its tag"),
        ("a: !!timestamp x", "does not fit its tag"),
        ("a: !!binary é", "not valid|failed to convert"),
        ("a: 1\na: 2", "the key 'a' stands twice, again in line 2"),
    ],
)
def test_what_is_too_much_ends_in_a_message(text: str, why: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NotStrict, match=why) as error:
        load(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    assert len(str(error.value)) < 500


def test_what_is_large_but_can_be() -> None:
    names = [f"class {number}" for number in range(21_000)]
    assert load(yaml.safe_dump({"classes": names}))["classes"] == names
    assert load("[" * DEEPEST + "]" * DEEPEST)
    assert load(f"a: {MOST_NUMBER}") == {"a": MOST_NUMBER}
    assert load("base: &b {a: 1}\nall: [*b, *b, {<<: *b, a: 2}]")["all"][2] == {"a": 2}
    assert load('a: "tab\\tand\\nline"\nb: |\n  two\n  lines\n')["b"] == "two\nlines\n"
    assert len(load("[" + "a," * (MOST_VALUES - 1) + "]")) == MOST_VALUES - 1
    assert load("\ufeffa: 1") == {"a": 1}


def test_aliases_are_counted_as_what_they_stand_for() -> None:
    for times, fits in ((3, True), (4, False)):
        text = f"a: &a [{'x, ' * 10_000}]\nb: [{'*a, ' * times}]"
        with contextlib.nullcontext() if fits else pytest.raises(NotStrict, match="up to line 2"):
            load(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text("ab \n'\"é", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(VALUES)
def test_plain_data_come_back_as_they_were(value: Any) -> None:
    for flow in (True, False):
        assert load(yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)) == value


def _never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(NotStrict):
        load(text)


@settings(max_examples=1000)
@given(st.text("ab1.-+:[]{}&*!?|>%@`'\",# \n\t\\<=~0x_e\x00\x85\ud800é", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    _never_fails_otherwise(text)


@pytest.mark.slow
@settings(max_examples=50_000)
@given(st.text("ab1.-+:[]{}&*!?|>%@`'\",# \n\t\\<=~0x_e\x00\x85\ud800é", max_size=200))
def test_any_text_is_read_or_refused_at_length(text: str) -> None:
    _never_fails_otherwise(text)
