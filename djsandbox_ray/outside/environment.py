"""What a node holds for programs: virtual environments, and folders for files while one runs.

All of it lies in ``$DJSANDBOX_OUTSIDE``, or in a folder of this user's own under the temporary
directory. ``environments/<id>/`` in it is an environment, made by uv once per node and kept by what
it consists of. Who needs one that is not there makes it, while all other processes of the node wait
at its lock; ``made.json`` in it is written last, so that one that was left half-made is made anew.
Package indexes are those that the node's own settings of uv name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.identity import content_id
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.outside.config import EnvironmentConfig, requirement_lines
from djsandbox_ray.storage import own

FOLDER = "DJSANDBOX_OUTSIDE"
"""Environment variable of a node: the folder."""
_KIND = "environment"
_MARKER = "made.json"
_REQUIREMENTS = "requirements.txt"
_TAIL_LINES = 20
# Of ours; in a program for another environment they mislead.
_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT")


def node_folder(name: str) -> Path:
    """Return a folder of this node, made if need be, that only this user can write.

    Raises:
        BadInput: it belongs to another user, who could choose what is run here.
    """
    folder = own.own_folder("outside", FOLDER) / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder of this node that is gone afterwards."""
    with own.scratch(node_folder("scratch")) as folder:
        yield folder


@dataclass(frozen=True)
class Environment:
    """What an environment consists of; can be sent to any node."""

    python: str
    requirements: tuple[str, ...]

    @classmethod
    def read(cls, config: EnvironmentConfig) -> Environment:
        """Read what the configuration names; on the driver, where its files are."""
        if config.requirements is None:
            return cls(config.python, config.packages)
        text = Path(config.requirements).read_text(encoding="utf-8")
        return cls(config.python, tuple(requirement_lines(text)))

    @property
    def id(self) -> str:
        """Stands for the Python version and the requirements, as they are written."""
        return content_id("environment", self.python, list(self.requirements))

    def check(self) -> None:
        """Have uv resolve the requirements, without installing any, unless it is made already.

        Raises:
            BadInput: there is no such set of packages, or none that is in reach of this node.
        """
        if self._is_made or not self.requirements:
            return
        given = "\n".join(self.requirements)
        resolving = ["pip", "compile", "--quiet", "--python-version", self.python, "-"]
        if (said := _uv(resolving, self._folder.parent, given)) is not None:
            raise BadInput(f"the environment of a program cannot be had: {said}")

    def made(self) -> Path:
        """Return the folder of the environment on this node, made if need be.

        Raises:
            SandboxError: uv cannot make it; quotes what it says.
        """
        folder = self._folder
        with own.locked(folder.with_name(f"{folder.name}.lock")):
            if self._is_made:
                return folder
            if own.is_ours(folder, _KIND):  # half-made
                own.remove(folder)
            _claim(folder)
            self._make(folder)
            (folder / _MARKER).write_text(self._said)
        return folder

    @property
    def _said(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @property
    def _is_made(self) -> bool:
        marker = self._folder / _MARKER
        return marker.is_file() and marker.read_text(errors="replace") == self._said

    @property
    def _folder(self) -> Path:
        return node_folder("environments") / self.id

    def _make(self, folder: Path) -> None:
        venv = ["venv", "--quiet", "--no-project", "--allow-existing", "--python", self.python]
        steps = [[*venv, str(folder)]]
        if self.requirements:
            listed = str(folder / _REQUIREMENTS)
            python = str(folder / "bin" / "python")
            steps.append(
                ["pip", "install", "--quiet", "--python", python, "--requirements", listed]
            )
        for step in steps:
            if (said := _uv(step, folder.parent)) is not None:
                raise SandboxError(f"the environment of a program cannot be made: {said}")
            (folder / _REQUIREMENTS).write_text("\n".join([*self.requirements, ""]))


def _claim(folder: Path) -> None:
    """Make the folder of an environment, with its marker from the first moment on.

    One that a killed maker, or a full disk, has left without would be in the way for ever.

    Raises:
        SandboxError: something else is there.
    """
    with scratch() as place:
        new = place / folder.name
        new.mkdir()
        own.mark(new, _KIND)
        try:
            new.rename(folder)  # or in the place of an empty one
        except OSError as error:
            if not os.path.lexists(folder):
                raise
            raise SandboxError(
                f"{folder} is in the way, and is not ours: move it, or set {FOLDER}"
            ) from error


def _uv(arguments: list[str], cwd: Path, given: str | None = None) -> str | None:
    """Run uv and return what it says if it fails, else None."""
    program = require("uv", "command").find_uv_bin()
    kept = {name: value for name, value in os.environ.items() if name not in _OURS}
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,  # not where settings for some project may lie
        env=kept,
        input=given,
        stdin=None if given is not None else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = without_secrets(done.stderr).strip().splitlines()[-_TAIL_LINES:]
    shown = " ".join(re.sub(r"^\W+", "", line) for line in lines)  # without uv's drawing
    return shown or f"uv ended with exit code {done.returncode}"
