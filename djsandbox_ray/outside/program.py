"""A program of others, ready to be sent to nodes and called there.

Its code goes with it, in memory, as it was when the run began: every node has the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.outside.config import EnvironmentConfig, ProgramConfig, filled
from djsandbox_ray.outside.container import Container
from djsandbox_ray.outside.environment import Environment
from djsandbox_ray.outside.process import Call, run, variables, without_values
from djsandbox_ray.storage.own import remove

LARGEST = 64 * 2**20
"""Bytes of all files together: code, not data or weights."""
_NEVER = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True)
class Snapshot:
    """Files by their relative paths, in one archive."""

    hash: str
    """Of paths, contents and which of them can be executed."""
    archive: bytes = field(repr=False)

    @classmethod
    def of(cls, paths: Sequence[str]) -> Snapshot:
        """Read files, each of which gets its name, and folders, of which the contents are taken.

        What :func:`is_left_out` says is not among the contents of a folder.

        Raises:
            BadInput: a path twice, a link to a folder, something that is no file, or too much.
        """
        files: dict[str, Path] = {}
        for path in map(Path, paths):
            for name, file in _found(path):
                if name in files:
                    raise BadInput(f"files: {name!r} is both {files[name]} and {file}")
                files[name] = file
        if (size := sum(file.stat().st_size for file in files.values())) > LARGEST:
            raise BadInput(
                f"files: {size:,} bytes of code are more than {LARGEST:,}: bring code only, and "
                "install packages, or put data where all nodes see it"
            )
        digest, buffer = hashlib.blake2b(digest_size=16), io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in sorted(files):
                data, run = files[name].read_bytes(), os.access(files[name], os.X_OK)
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o755 if run else 0o644
                archive.addfile(member, io.BytesIO(data))
                digest.update(f"{name}\0{len(data)}\0{run}\0".encode() + data)
        return cls(digest.hexdigest(), buffer.getvalue())

    def unpack(self, folder: Path) -> None:
        """Write the files into a folder, which must not be there."""
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            archive.extractall(folder, filter="data")


def is_left_out(name: str) -> bool:
    """Tell whether something in a folder stays where it is: hidden, or what tools have put there.

    The same holds for what is shipped with a job, so that the nodes have what a run here has.
    """
    return name in _NEVER or name.startswith(".")


def _found(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a path, each with the name that it gets."""
    if path.is_file():
        yield path.name, path
        return
    for root, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        if links := [name for name in folders if Path(root, name).is_symlink()]:
            raise BadInput(f"files: {Path(root, links[0])} is a link to a folder: name that folder")
        for name in [name for name in names if not is_left_out(name)]:
            file = Path(root, name)
            if not file.is_file():
                raise BadInput(f"files: {file} is no file that could be copied")
            yield file.relative_to(path).as_posix(), file


@dataclass(frozen=True)
class Program:
    """What a configuration says of a program, with the files that it names."""

    config: ProgramConfig
    environment: Environment | None
    """None in a container."""
    code: Snapshot

    @classmethod
    def read(cls, config: ProgramConfig) -> Program:
        """Read the files that a configuration names; on the driver, where they are.

        The same configuration gives the same files, should they change while it is worked with.

        Raises:
            BadInput: they cannot be brought to the nodes.
        """
        try:
            if config._files is None:
                wanted = config.environment or EnvironmentConfig()
                environment = None if config.image else Environment.read(wanted)
                config._files = environment, Snapshot.of(config.files)
            return cls(config, *config._files)
        except (OSError, ValueError) as error:
            raise BadInput(f"the files of {config.command[0]!r} cannot be read: {error}") from error

    def identity(self) -> dict[str, Any]:
        """Return plain data that decides what the program does: its files by their contents."""
        settings = self.config.model_dump(mode="json", exclude={"timeout", "environment", "files"})
        own = None if self.environment is None else self.environment.id
        return {**settings, "environment": own, "files": self.code.hash}

    def check(self) -> None:
        """Look for its packages before anything is run; on the driver.

        Raises:
            BadInput: they are not to be had.
        """
        if self.environment is not None:
            self.environment.check()

    def call(
        self,
        values: Mapping[str, str],
        folder: Path,
        *,
        cpus: float,
        gpus: float,
        reads: Sequence[Path] = (),
    ) -> None:
        """Run the program once, in a working directory of its own with its code in it.

        Its output goes to ours, line by line, without secrets.

        Args:
            values: of the placeholders.
            folder: all files that it may write lie here; ``work`` and ``tmp`` in it are replaced.
            cpus: CPUs that it may use.
            gpus: GPUs that it may use.
            reads: folders elsewhere that it may read.

        Raises:
            ProgramFailed: it ended with an error; quotes its last lines.
            SandboxError: its environment cannot be made, or what the last call left not be removed.
        """
        config, work, tmp = self.config, folder / "work", folder / "tmp"
        for place in (work, tmp):
            remove(place)
        self.code.unpack(work)
        tmp.mkdir()
        given = {name: filled(text, values) for name, text in config.env.items()}
        env = variables(env=given, pass_env=config.pass_env, cpus=cpus, gpus=gpus)
        env["TMPDIR"] = str(tmp)
        words = [filled(word, values) for word in config.command]
        afterwards = None
        if config.image is not None:
            container = Container.of(config.image)
            named = [*given, *config.pass_env]
            words = container.command(words, folder, reads, env, named)
            env, afterwards = container.environment(env), container.removal
        elif self.environment is not None:
            home = self.environment.made()
            env |= {"VIRTUAL_ENV": str(home), "PATH": f"{home / 'bin'}:{env['PATH']}"}
        run(Call(words, work, env, config.timeout, afterwards), self._show)

    def _show(self, line: str) -> str:
        shown = without_secrets(without_values(line, self.config.pass_env))
        print(shown, flush=True)
        return shown
