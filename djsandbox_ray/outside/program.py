"""A program of others, ready to be sent to nodes and called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.outside.container import Container
from djsandbox_ray.outside.environment import Environment
from djsandbox_ray.outside.node import remove
from djsandbox_ray.outside.placeholders import filled
from djsandbox_ray.outside.process import Call, run
from djsandbox_ray.outside.settings import EnvironmentConfig, ProgramConfig
from djsandbox_ray.outside.snapshot import Snapshot
from djsandbox_ray.outside.variables import variables, without_values


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
