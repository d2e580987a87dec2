"""No name that a user or the data gives leads out of a folder, into a shell or into a page.

A secret in a configuration is refused where files repeat it, and masked where it is shown.
"""

from __future__ import annotations

import shlex
import string
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from factories import minimal_config, minimal_document, write_config
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name, _validate_param_name
from pydantic import ValidationError

from djsandbox_ray.cli import main
from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.builder import BuilderConfig
from djsandbox_ray.reporting.blocks import (
    Chapter,
    Listing,
    Picture,
    ReportTable,
)
from djsandbox_ray.reporting.page import report_html
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.mlflow import MlflowConfig, MlflowTracker
from djsandbox_ray.tracking.mlflow_runs import named
from djsandbox_ray.tracking.outbox import Refused
from djsandbox_ray.workflows.finished import sync_run
from djsandbox_ray.workflows.language.jobs import Job
from djsandbox_ray.workflows.recipe import show_recipes

SAFE = set(string.ascii_letters + string.digits + "._-")
EVIL = [
    "../up",
    "a/../../up",
    "/etc/passwd",
    "..",
    "a\n",
    "a\0b",
    "$(touch /tmp/x)",
    "a; rm -rf .",
    "`id`",
    "'\"><script>alert(1)</script>",
    "--help",
    "a\\b",
]
NAMES = st.one_of(
    st.sampled_from(EVIL),
    st.text(
        alphabet=st.sampled_from([*"ab1._-/\\\0\n\r\t '\"$`;&|<>{}*?~%=", "é", "‮"]), max_size=12
    ),
    st.text(max_size=12),
)


def _accepted(make) -> bool:
    try:
        make()
    except ValidationError:
        return False
    return True


@given(NAMES)
@example("a\n")
@example("plain")
def test_a_name_of_a_run_a_job_or_a_builder_is_a_plain_word(name: str) -> None:
    for accepted in (
        _accepted(lambda: RunConfig.model_validate(minimal_document(name=name))),
        _accepted(lambda: Job(id=name, hook="ingest")),
        _accepted(lambda: BuilderConfig(type="x", name=name)),
    ):
        if accepted:
            assert set(name) <= SAFE
            assert name[0] not in ".-"
        assert accepted or name != "plain"


@given(NAMES)
def test_a_path_in_a_storage_stays_in_it(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    storage = Storage(str(root / "storage"))
    try:
        storage.write_bytes(f"runs/{name}/x", b"x")
        storage.write_bytes(name, b"x")
    except (ValueError, OSError, BadInput):
        pass
    assert {path.relative_to(root).parts[0] for path in root.rglob("*")} <= {"storage"}
    with pytest.raises((BadInput, ValueError)):
        storage.read_bytes(f"../{name}")


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc", "..", ""])
def test_the_name_of_a_run_on_the_command_line_is_checked(tmp_path: Path, name: str) -> None:
    from rich.console import Console

    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "config.yaml").write_text("tracking: {type: none}")
    for command in (
        lambda: sync_run(name, str(tmp_path / "storage"), None),
        lambda: show_recipes(name, str(tmp_path / "storage"), None, Console(quiet=True)),
    ):
        with pytest.raises(BadInput, match="is not the name of a run"):
            command()


@given(st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
@example("a'; touch /tmp/x; '")
@example("$(id) `id`")
def test_the_command_that_is_printed_is_one_command(folder: str) -> None:
    storage = Storage("/data/" + folder.replace("/", "_").replace("://", "_"))
    command = MlflowTracker(MlflowConfig(uri=f"sqlite:///{storage.url}/m.db"), storage).ui_command
    words = shlex.split(command)
    assert words[:3] == ["mlflow", "ui", "--backend-store-uri"]
    assert len(words) == 4


@given(st.dictionaries(NAMES.filter(bool), st.just(1.0), max_size=3))
def test_names_for_mlflow_are_taken_or_refused_as_a_whole(given_names: dict[str, float]) -> None:
    try:
        names = named(given_names)
    except Refused:
        return
    assert len(names) == len(given_names)
    for name in names:
        for check in (_validate_metric_name, _validate_param_name):
            # A name such as "a//b" it may still refuse, which is said; of characters no more.
            assert "may only contain" not in _complaint(check, name)


def _complaint(check: Callable[[str], None], name: str) -> str:
    try:
        check(name)
    except MlflowException as error:
        return str(error)
    return ""


class _Shape(HTMLParser):
    """The tags of a page, with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))


def _page(text: str) -> str:
    # Long, as short cells look different.
    long = f"{text}{'x' * 80}"
    table = ReportTable(long, (long, long), [(long, long)])
    blocks = [table, Listing(long, long), Picture(long, b"png")]
    chapter = Chapter(long, [long], blocks, headline=long)
    return report_html(
        long, [], chapters=[chapter], figures=[Picture(long, b"png")], tables=[table]
    )


@given(st.one_of(NAMES, st.text(alphabet=st.sampled_from(list("<>&'\"/=-! ascriptonerror")))))
@example("<script>alert(1)</script>")
@example("' onerror=alert(1) '")
@example('" onerror=alert(1) "')
@example("--><img src=x onerror=alert(1)>")
def test_no_text_becomes_a_part_of_the_page(text: str) -> None:
    assert _Shape(_page(text)).tags == _Shape(_page("")).tags


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
