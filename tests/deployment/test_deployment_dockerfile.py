"""The Dockerfiles keep the rules, and the steps of the main one work in a clean folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from check_dockerfile import FILES, Image, copied, problems, steps  # noqa: E402


@pytest.mark.parametrize("name", FILES)
def test_rules_are_kept(name: str) -> None:
    assert list(problems((ROOT / name).read_text())) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("python:3.11-slim-bookworm", "python", "tag"),
        ("python:3.11-slim-bookworm", "python:latest", "latest"),
        ("USER 1000:1000", "USER root", "not root"),
        ("COPY configs configs", "COPY sandbox sandbox", "COPY sandbox"),
        ("COPY configs configs", "COPY tests tests", "COPY tests"),
        ("COPY configs configs", "ADD configs configs", "ADD"),
        ("ARG GIT_COMMIT", "ENV API_TOKEN=x", "secrets"),
        ("HEALTHCHECK", "LABEL", "HEALTHCHECK"),
        ('CMD ["djsandbox", "--help"]', "CMD djsandbox", "list"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "same step"),
        ("--no-deps .", "--no-deps https://example.org/x.whl", "addresses"),
    ],
)
def test_breaking_a_rule_is_found(old: str, new: str, said: str) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert old in text
    assert any(said in line for line in problems(text.replace(old, new)))


def test_nothing_but_the_package_gets_into_the_image() -> None:
    found = {path.relative_to(ROOT).parts[0] for path in copied(".")}
    assert found == {
        "LICENSE",
        "README.md",
        "configs",
        "djsandbox_ray",
        "pyproject.toml",
        "requirements-dev.txt",
        "requirements.txt",
        "setup.py",
    }
    assert not [path for path in copied(".") if "__pycache__" in path.parts]


def test_what_changes_seldom_comes_first() -> None:
    text = (ROOT / "Dockerfile").read_text()
    marks = [
        "apt-get",
        "COPY requirements.txt",
        "torchvision ;;",
        "--requirement",
        "COPY djsandbox",
    ]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


@pytest.mark.integration
@pytest.mark.slow
def test_the_steps_install_a_package_that_works(tmp_path: Path) -> None:
    image = Image(tmp_path / "image", skip_install=True)
    left_out = image.build(steps((ROOT / "Dockerfile").read_text()))
    assert [command.split()[0] for command in left_out] == ["apt-get", "case", "python"]
    package = image.run("python", "-c", "import djsandbox_ray as d; print(d.__file__)").strip()
    assert package.startswith(str(image.root / "venv"))
    config = str(image.root / "opt" / "djsandbox" / "configs" / "demo.yaml")
    assert "trials" in image.run("djsandbox", "plan", config)
    assert "trials" in image.run("djsandbox", "plan", "--example", "demo")  # of the wheel
    assert not (image.root / "opt" / "djsandbox" / "djsandbox_ray").exists()
