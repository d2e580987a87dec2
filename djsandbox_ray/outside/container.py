"""A program in a container, by the engine of the node: Podman or Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from djsandbox_ray.errors import BadInput

ENGINES = ("podman", "docker")
# They speak of the node, not of what is in the image.
_OF_THE_NODE = {
    *("PATH", "HOME", "USER", "LOGNAME", "LD_LIBRARY_PATH", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}
_DEVICES = "CUDA_VISIBLE_DEVICES"
_ROOTLESS = {"rootless", "rootless: true"}
"""Lines of ``docker info`` and ``podman info``."""


@dataclass(frozen=True)
class Container:
    """One container, to be run once."""

    engine: str
    image: str
    name: str
    rootless: bool = False
    """Whether the engine runs as the user of this process: root in its containers is that user."""

    @classmethod
    def of(cls, image: str) -> Container:
        """Return a container by the first engine of this node that answers.

        Raises:
            BadInput: there is none.
        """
        said = []
        for engine in ENGINES:
            if (program := shutil.which(engine)) is None:
                said.append(f"{engine} is not installed")
                continue
            asked = subprocess.run([program, "info"], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                said_of_itself = {line.strip() for line in asked.stdout.splitlines()}
                rootless = bool(said_of_itself & _ROOTLESS)
                return cls(program, image, f"djsandbox-{uuid4().hex}", rootless)
            lines = [line for line in asked.stderr.splitlines() if line.strip()]
            said.append(f"{engine} does not answer: {lines[-1] if lines else asked.returncode}")
        raise BadInput(
            f"image: {image!r} needs Podman or Docker on the nodes of the trials: {'; '.join(said)}"
        )

    def command(
        self,
        words: Sequence[str],
        folder: Path,
        reads: Sequence[Path],
        env: Mapping[str, str],
        named: Collection[str] = (),
    ) -> list[str]:
        """Return the engine's command, which begins in ``work`` of ``folder``.

        The container sees ``folder`` and, to be read only, ``reads``, under their own paths, and
        works as our user, so that we can read and remove what it writes there. Values
        of variables stay out of the command, which every user of the node can read: the engine
        takes them from its own, ``environment``.

        Args:
            words: the program and its arguments.
            folder: all files that it may write lie here.
            reads: folders that it may read.
            env: the variables that it would see without a container.
            named: those that the configuration names: it sees them whatever they speak of.
        """
        # Stopped, it is killed at once, as without a container.
        options = ["--rm", f"--name={self.name}", "--stop-timeout=0", *_shared_memory()]
        options += [f"--volume={folder}:{folder}"]
        options += [f"--volume={one}:{one}:ro" for one in reads]
        options += [f"--workdir={folder / 'work'}"]
        options += [word for name in _seen(env) for word in ("--env", name)]
        options += self._user()
        # Our user may have no name and no home in the image.
        given = {"HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp"), "USER": "djsandbox"}
        given |= {name: env[name] for name in named if name in _OF_THE_NODE}
        # Those that it gets are all that it has, and counted anew.
        devices = [one for one in env.get(_DEVICES, "").split(",") if one]
        given[_DEVICES] = ",".join(map(str, range(len(devices))))
        options += [f"--env={name}={value}" for name, value in given.items()]
        return [self.engine, "run", *options, *self._devices(devices), self.image, *words]

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the engine itself: the node's, which may say where it works.

        Those of ``env`` that the container sees are among them, since it takes their values there.
        """
        return {**os.environ, **{name: env[name] for name in _seen(env)}}

    @property
    def removal(self) -> list[str]:
        """The command that ends the container: it does not die with the engine's client."""
        return [self.engine, "rm", "--force", self.name]

    def _user(self) -> list[str]:
        """Return what makes the user of this process that of the container."""
        own = f"--user={os.getuid()}:{os.getgid()}"
        if not self.rootless:
            return [own]
        return ["--user=0:0"] if self._is_docker else ["--userns=keep-id", own]

    @property
    def _is_docker(self) -> bool:
        return Path(self.engine).name == "docker"

    def _devices(self, devices: Sequence[str]) -> list[str]:
        # Only Podman hands on the node's proxies, with the passwords in them, unasked.
        hidden = [] if self._is_docker else ["--http-proxy=false"]
        if not devices:
            return hidden
        if self._is_docker:
            return ["--gpus", f'"device={",".join(devices)}"']
        return [*hidden, *(f"--device=nvidia.com/gpu={one}" for one in devices)]


def _seen(env: Mapping[str, str]) -> list[str]:
    """Return the variables whose values the engine takes from its own."""
    return sorted(set(env) - _OF_THE_NODE - {_DEVICES})


def _shared_memory() -> list[str]:
    """Return what gives the container as much of it as the node has, not an engine's 64 MB.

    Loaders of PyTorch, which hand batches over in it, die of less.
    """
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return []
    return [f"--shm-size={found.f_frsize * found.f_blocks}"]
