"""Check the Dockerfiles where no container engine is at hand.

    python cluster/check_dockerfile.py                  rules, for both files
    python cluster/check_dockerfile.py --run FOLDER     and run the steps of the main one there

The steps are run in a new folder with a virtual environment of its own, in place of the image: COPY
brings what .dockerignore lets through and nothing else, RUN runs in the WORKDIR, as nobody if root
calls this and nobody can run this Python. Steps that change the system (apt-get) are left out and
named; so are, with ``--skip-install``, those that install the requirements, for which this Python's
own packages stand in. At the end the image's command must work.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("Dockerfile", "cluster/mlflow/Dockerfile")
NOBODY = 65534


@dataclass(frozen=True)
class Step:
    """One instruction: ``RUN`` and what it is given, with variables of build arguments as is."""

    keyword: str
    value: str


def steps(text: str) -> list[Step]:
    """Read a Dockerfile: lines are joined at backslashes, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [Step(word.upper(), rest.strip()) for word, _, rest in found]


def problems(text: str, context: Path = ROOT) -> Iterator[str]:
    """Yield what is wrong with a Dockerfile, one line each."""
    found = steps(text)
    arguments = {}
    for step in found:
        if step.keyword == "ARG":
            name, _, value = step.value.partition("=")
            arguments[name] = value
    last = {step.keyword: step.value for step in found}
    for step in found:
        if step.keyword == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], step.value.split()[0])
            if ":" not in image or image.endswith(":latest"):
                yield f"FROM {image}: a tag is needed, and not latest"
        elif step.keyword == "COPY":
            *sources, _ = step.value.split()
            yield from (
                f"COPY {name}: not in the context"
                for name in sources
                if not list(copied(name, context))
            )
        elif step.keyword == "ADD":
            yield f"ADD {step.value}: COPY says what it does"
        elif step.keyword in ("ENV", "ARG") and re.search(
            r"(?i)(password|passwd|secret|token|_key)\w*=", step.value
        ):
            yield f"{step.keyword} {step.value}: secrets stay in the image for all to read"
        elif step.keyword == "RUN":
            yield from _of_command(step.value)
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", last.get("USER", "")):
        yield "USER: the number of a user who is not root is needed"
    yield from (f"{word} is missing" for word in ("HEALTHCHECK", "CMD") if word not in last)
    if not last.get("CMD", "[").startswith("["):
        yield "CMD: a list is needed; a shell in between keeps signals from the program"


def _of_command(command: str) -> Iterator[str]:
    if re.search(r"https?://", command):
        yield f"RUN {command}: no addresses; they come from the environment of the build"
    if "apt-get install" in command:
        for part in ("apt-get update", "--no-install-recommends", "rm -rf /var/lib/apt/lists"):
            if part not in command:
                yield f"RUN apt-get install: {part} belongs into the same step"


def copied(source: str, context: Path = ROOT) -> Iterator[Path]:
    """Yield the files that COPY finds under a source: those that .dockerignore lets through."""
    text = (context / ".dockerignore").read_text()
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    yield from _files(context / source, context, rules)


def _files(place: Path, context: Path, rules: list[str]) -> Iterator[Path]:
    """Go down; not into folders that are ignored, whose exceptions no rule of ours names."""
    if place != context and _ignored(place.relative_to(context), rules):
        return
    if place.is_file():
        yield place
    elif place.is_dir():
        for path in sorted(place.iterdir()):
            yield from _files(path, context, rules)


def _ignored(path: Path, rules: list[str]) -> bool:
    """Apply the rules in order, as Docker does: the last that matches the path or a parent wins."""
    ignored = False
    candidates = [str(path), *map(str, path.parents)]
    for rule in rules:
        pattern = rule.lstrip("!")
        anywhere = pattern.removeprefix("**/")
        if any(
            fnmatch(name.rsplit("/", 1)[-1], anywhere)
            if anywhere != pattern
            else fnmatch(name, pattern) and name.count("/") == pattern.count("/")
            for name in candidates
        ):
            ignored = not rule.startswith("!")
    return ignored


class Image:
    """A folder in place of an image, with a virtual environment in place of its Python."""

    def __init__(self, folder: Path, skip_install: bool) -> None:
        self.root = folder
        self._skip_install = skip_install
        self._workdir = folder
        self._variables: dict[str, str] = {}
        folder.mkdir()
        venv.create(folder / "venv", with_pip=True)
        if skip_install:
            # As a plain path: what is installed there as editable stays out.
            packages = Path(sysconfig.get_path("purelib"))
            (own,) = (folder / "venv").glob("lib/python*/site-packages")
            (own / "requirements.pth").write_text(f"{packages}\n")
        self._user = NOBODY if os.geteuid() == 0 and _nobody_has_python() else None
        self._give()

    def build(self, found: list[Step], context: Path = ROOT) -> list[str]:
        """Run the steps; returns what was left out.

        Raises:
            subprocess.CalledProcessError: a step failed.
        """
        left_out = []
        for step in found:
            if step.keyword == "WORKDIR":
                self._workdir = self.root / step.value.lstrip("/")
                self._workdir.mkdir(parents=True, exist_ok=True)
            elif step.keyword == "COPY":
                self._copy(*step.value.split(), context=context)
            elif step.keyword in ("ENV", "ARG"):
                pairs = (word.partition("=") for word in shlex.split(step.value))
                self._variables |= {name: value for name, found, value in pairs if found}
            elif step.keyword == "RUN":
                if self._is_left_out(step.value):
                    left_out.append(step.value)
                else:
                    self.run("sh", "-c", step.value)
            self._give()
        return left_out

    def run(self, *command: str) -> str:
        """Run a command as the image would; returns what it printed."""
        print("+", shlex.join(command), flush=True)
        kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "REQUESTS_"))}
        done = subprocess.run(
            command,
            cwd=self._workdir,
            env={
                **kept,
                **self._variables,
                "HOME": str(self.root / "home" / "ray"),
                "PATH": f"{self.root}/venv/bin:/usr/local/bin:/usr/bin:/bin",
            },
            user=self._user,
            group=self._user,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    def _is_left_out(self, command: str) -> bool:
        installs = "--requirement" in command or "torch" in command
        return command.startswith("apt-get") or (self._skip_install and installs)

    def _copy(self, *words: str, context: Path) -> None:
        *sources, target = words
        for source in sources:
            place = self._workdir / target
            for path in copied(source, context):
                inside = path.relative_to(context / source)
                # Of a folder COPY takes what is in it, of a file the file.
                name = place / inside if path != context / source else place / path.name
                name.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, name)

    def _give(self) -> None:
        if self._user is not None:
            for path in (self.root, *self.root.rglob("*")):
                os.chown(path, self._user, self._user, follow_symlinks=False)


def _nobody_has_python() -> bool:
    """Say whether a user without rights can run this Python at all: it may lie in root's home."""
    try:
        subprocess.run([sys.executable, "-c", ""], user=NOBODY, group=NOBODY, check=True)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def main() -> None:
    """Check; exit code 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a new folder to run steps in")
    parser.add_argument("--skip-install", action="store_true")
    options = parser.parse_args()
    wrong = [f"{name}: {line}" for name in FILES for line in problems((ROOT / name).read_text())]
    if wrong:
        sys.exit("\n".join(wrong))
    if options.run is not None:
        image = Image(options.run, options.skip_install)
        found = steps((ROOT / FILES[0]).read_text())
        for command in image.build(found):
            print("left out:", command)
        print(image.run("djsandbox", "--help"))


if __name__ == "__main__":
    main()
