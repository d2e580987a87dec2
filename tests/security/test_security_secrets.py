"""A secret in a configuration is refused where files repeat it, and masked where it is shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from factories import minimal_config, write_config

from djsandbox_ray.cli import main
from djsandbox_ray.errors import BadInput


@pytest.mark.parametrize("address", ["s3://id:planted@bucket/clip", "https://host/x?token=planted"])
def test_a_secret_among_the_parameters_of_an_operator_is_refused(address: str) -> None:
    scoring = {"image_text_similarity_filter": {"hf_clip": address}}
    with pytest.raises(BadInput, match=r"operators\[1\].*hf_clip: holds a secret") as caught:
        minimal_config(operators=["text_length_filter", scoring])
    assert "planted" not in str(caught.value)


def test_what_the_program_says_of_an_error_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "id:planted@x" / "data?token=planted.parquet"
    words = ["djsandbox", "plan", str(write_config(tmp_path))]
    words += ["--set", f"dataset={{type: parquet, path: 'file://{there}'}}"]
    words += ["--set", "tracking={type: mlflow, uri: 'ftp://me:planted@there'}"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert "ftp://***@there" in told.err
    assert "planted" not in told.out + told.err
