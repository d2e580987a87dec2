from __future__ import annotations

import pytest

from djsandbox_ray.masking import masked, names_secret, without_secrets


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
        ("/data/id:secret@host/a.parquet", "/data/***@host/a.parquet"),
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
    [
        "http://host:5000",
        "text_key=caption",
        "monkey=1",
        "a@b.example",
        "s3://bucket/a@2x.png",
        "docker.io/a/b:1@sha256:0f",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_the_values_of_secret_variables_are_masked_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def+ghi=")
    monkeypatch.setenv("MY_SERVICE_TOKEN", "abc/def+ghi=and-more")
    monkeypatch.setenv("SOME_PASSWORD", "none")  # too short to be looked for
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/me/token")
    text = "key abc/def+ghi= and abc%2Fdef%2Bghi%3D and abc/def+ghi=and-more"
    assert without_secrets(text) == "key *** and *** and ***"
    rest = "none of eu-central-1 in /home/me/key.json or /home/me/token"
    assert without_secrets(rest) == rest
    assert without_secrets("abc/def+ghi=", environment=False) == "abc/def+ghi="


def test_the_environment_is_read_anew_and_its_names_are_judged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(50):
        monkeypatch.setenv(f"PLAIN_{number}", "some value")
    for secret in ("the first one", "the second one"):
        monkeypatch.setenv("SOME_APITOKEN", secret)
        assert without_secrets(f"it is {secret}") == "it is ***"
    judged = names_secret.cache_info().misses
    monkeypatch.delenv("SOME_APITOKEN")
    assert without_secrets("it is the second one") == "it is the second one"
    assert names_secret.cache_info().misses == judged


def test_headers_are_masked() -> None:
    assert without_secrets("Authorization: Bearer abcdefgh12345678") == "Authorization: Bearer ***"
    assert without_secrets("the bearer of news, basic training") == (
        "the bearer of news, basic training"
    )


def test_plain_data_is_masked_by_its_keys_and_texts() -> None:
    given = {
        "dataset": {"path": ("s3://id:key@bucket/a", "/data")},
        "api_key": "k",
        "nested": [{"hf_token": "t", "password": "p", "db_password": "p"}],
        "connection_string": "c",
        "text_key": "caption",
        "image_token": "<image>",
        "max_tokens": 5,
        "token": 3,
        "secret": None,
    }
    assert masked(given) == {
        "dataset": {"path": ["s3://***@bucket/a", "/data"]},
        "api_key": "***",
        "nested": [{"hf_token": "***", "password": "***", "db_password": "***"}],
        "connection_string": "***",
        "text_key": "caption",
        "image_token": "<image>",
        "max_tokens": 5,
        "token": 3,
        "secret": None,
    }
