"""A virtual environment for a program, made by uv once per node and kept by what it consists of.

``<node folder>/environments/<id>/`` holds it. Who needs one that is not there makes it, while all
other processes of the node wait at its lock; ``made.json`` in it is written last, so that one that
was left half-made is made anew. Package indexes are those that the node's own settings of uv name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.identity import content_id
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.node_folder import locked
from djsandbox_ray.outside.node import node_folder
from djsandbox_ray.outside.settings import EnvironmentConfig, requirement_lines

_MARKER = "made.json"
_REQUIREMENTS = "requirements.txt"
_TAIL_LINES = 20
# Of ours; in a program for another environment they mislead.
_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT")


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
        if (self._folder / _MARKER).exists() or not self.requirements:
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
        with locked(folder.with_name(f"{folder.name}.lock")):
            if (folder / _MARKER).exists():
                return folder
            if folder.exists():  # half-made
                shutil.rmtree(folder)
            self._make(folder)
            (folder / _MARKER).write_text(json.dumps(asdict(self), indent=2))
        return folder

    @property
    def _folder(self) -> Path:
        return node_folder("environments") / self.id

    def _make(self, folder: Path) -> None:
        steps = [["venv", "--quiet", "--no-project", "--python", self.python, str(folder)]]
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
