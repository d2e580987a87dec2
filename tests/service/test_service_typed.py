from __future__ import annotations

import shlex

import pytest

from djsandbox_ray.service.submit import shown


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("dataset.api_key=sk-planted", "dataset.api_key=***"),
        ("db.password=12345", "db.password=***"),
        ("hosts[0].hf_token=planted", "hosts[0].hf_token=***"),
        ("api_key.0=planted", "api_key.0=***"),
        ("dataset={type: mine, api_key: planted}", "dataset=***"),
        ("dataset.path=[s3://id:planted@bucket/x]", "dataset.path=***"),
        ("tracking.uri=http://me:planted@host", "tracking.uri=http://***@host"),
        ("dataset={type: shapes, samples: 3}", "dataset={type: shapes, samples: 3}"),
        ("dataset.text_key=caption", "dataset.text_key=caption"),
        ("trials.seeds=5", "trials.seeds=5"),
    ],
)
def test_what_is_set_is_masked_as_in_a_configuration(override: str, expected: str) -> None:
    words = ["djsandbox", "submit", "x.yaml"]
    assert shlex.split(shown([*words, "--set", override])) == [*words, "--set", expected]
    assert shlex.split(shown([*words, f"--set={override}"])) == [*words, f"--set={expected}"]


def test_the_rest_of_a_command_stays_but_for_addresses() -> None:
    words = [
        "djsandbox",
        "submit",
        "my runs.yaml",
        "--storage",
        "s3://id:planted@b/p",
        "--no-follow",
    ]
    assert shlex.split(shown(words)) == [*words[:4], "s3://***@b/p", "--no-follow"]
