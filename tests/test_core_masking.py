from __future__ import annotations

import pytest

from djsandbox_ray.masking import without_secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pass@host:5000/x", "http://***@host:5000/x"),
        ("postgresql://u:p@ss@db/mlflow", "postgresql://***@db/mlflow"),
        (
            "postgresql://db/mlflow?password=pw&sslmode=on",
            "postgresql://db/mlflow?password=***&sslmode=on",
        ),
        ("simplecache::s3://id:secret@bucket/a", "simplecache::s3://***@bucket/a"),
        (
            "https://b.example/c?X-Amz-Credential=AKIA&X-Amz-Signature=5f&x=1",
            "https://b.example/c?X-Amz-Credential=***&X-Amz-Signature=***&x=1",
        ),
        ("abfs://c/d?sv=2024&sig=a%2Fb", "abfs://c/d?sv=2024&sig=***"),
        (
            "run --token=abc then http://h?access_token=x",
            "run --token=*** then http://h?access_token=***",
        ),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    assert without_secrets(text) == masked


@pytest.mark.parametrize(
    "text",
    ["http://host:5000", "text_key=caption", "monkey=1", "a@b.example", "s3://bucket/a@2x.png"],
)
def test_the_rest_stays(text: str) -> None:
    assert without_secrets(text) == text
