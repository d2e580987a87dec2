"""What a configuration may say of a program, and how placeholders are filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from djsandbox_ray.outside.config import filled, placeholders, requirement_lines
from djsandbox_ray.trials.command import CommandConfig

WORDS = ["python", "train.py", "{pool}", "{samples}", "{seed}", "{metrics}"]


def config(**changes: Any) -> CommandConfig:
    return CommandConfig.model_validate({"type": "command", "command": WORDS, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": "python train.py {pool}"}, "no shell reads the command"),
        ({"command": []}, "at least 1"),
        ({"command": [*WORDS, "{pol}"]}, r"unknown placeholder '\{pol\}'.*did you mean '\{pool\}'"),
        ({"command": [*WORDS, '{"a": 1}']}, r"\{\{ and \}\} for braces"),
        ({"command": [*WORDS, "a}b"]}, "a brace alone"),
        ({"command": [*WORDS, "a\0b"]}, "pattern"),
        ({"command": [*WORDS, True]}, "valid string"),
        ({"command": WORDS[:-1]}, r"lacks \{metrics\}"),
        ({"command": ["{pool}", *WORDS[2:]]}, "cannot be a placeholder"),
        ({"env": {"HF_TOKEN": "abc"}}, "pass_env"),
        ({"env": {"PGPASSWORD": "abc"}}, "sounds like a secret"),
        ({"env": {"DB_PWD": "abc"}}, "sounds like a secret"),
        ({"env": {"SSH_PASSPHRASE": "abc"}}, "sounds like a secret"),
        ({"env": {"DB_CONNECTION_STRING": "abc"}}, "sounds like a secret"),
        ({"env": {"APITOKEN": "abc"}}, "sounds like a secret"),
        ({"env": {"SIGNING_KEY": "abc"}}, "sounds like a secret"),
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "is set for every program"),
        ({"env": {"A B": "x"}}, "pattern"),
        ({"env": {"PLACE": "{nowhere}"}}, "unknown placeholder"),
        ({"files": ["no/such/folder"]}, "does not exist"),
        ({"format": "csv"}, "unknown format 'csv'"),
        ({"environment": {"python": "three"}}, "no version of Python"),
        ({"environment": {"python": "3"}}, "such as '3.11'"),
        ({"environment": {"packages": ["--index-url=http://x"]}}, "is an option"),
        ({"environment": {"packages": ["./mine"]}}, "no requirement"),
        ({"environment": {"packages": ["mine @ file:///mine"]}}, "not there on others"),
        ({"environment": {"requirements": "no/such/file"}}, "does not exist"),
        ({"image": "-v/:/host"}, "pattern"),
        ({"image": "some:1", "environment": {}}, "brings its own packages"),
        ({"timeout": 0}, "greater than 0"),
        ({"shell": True}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_an_error(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**changes)


@pytest.mark.parametrize("changes", [{"image": "some:1"}, {"environment": {"python": "3.12"}}])
def test_a_resolved_configuration_can_be_read_again(changes: dict[str, Any]) -> None:
    known = config(**changes)
    assert CommandConfig.model_validate(known.model_dump(mode="json")) == known


def test_numbers_are_words_too() -> None:
    assert config(command=[*WORDS, "--lr", 0.1, 3]).command[-3:] == ["--lr", "0.1", "3"]


def test_a_placeholder_may_stand_in_a_variable() -> None:
    known = config(command=[word for word in WORDS if word != "{seed}"], env={"SEED": "{seed}"})
    assert known.used() == {"pool", "samples", "seed", "metrics"}


def test_a_variable_that_only_sounds_a_bit_like_a_secret_is_taken() -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "TEXT_KEYS": "caption", "PASSES": "3"}
    assert config(env=env).env == env


def test_values_are_filled_in_once() -> None:
    values = {"pool": "/a b/{seed}; rm -rf", "seed": "3"}
    assert filled("--x={pool}/{seed}{{}}", values) == "--x=/a b/{seed}; rm -rf/3{}"
    assert placeholders("{{pool}}", ["pool"]) == set()


def test_requirements_are_read_with_their_hashes(tmp_path: Path) -> None:
    text = (
        "# pinned\nnumpy==1.26.4 \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n\npillow  # x\n"
    )
    numpy, pillow = requirement_lines(text)
    assert numpy.split() == ["numpy==1.26.4", "--hash=sha256:ab", "--hash=sha256:cd"]
    assert pillow == "pillow"
    for line in ("-r other.txt", "-e .", "--extra-index-url http://x"):
        with pytest.raises(ValueError, match="is an option"):
            requirement_lines(line)
