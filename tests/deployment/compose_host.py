"""This machine in place of compose's engine: the services' commands, health checks, environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from compose_file import Service, service
from factories import wait_until

BIN = Path(sys.executable).parent


@dataclass
class Host:
    """This machine in place of the network of containers: other names and ports for the same."""

    folder: Path
    names: dict[str, str]
    """What stands in the compose file, and what takes its place, in this order."""
    variables: dict[str, str]
    extra: dict[str, str] = field(default_factory=dict)
    """Further environment of every command: what is fixed in a container and not here."""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def put(self, text: str, own: dict[str, str]) -> str:
        for old, new in {**own, **self.names}.items():
            text = text.replace(old, new)
        return text

    def read(self, name: str, own: dict[str, str], extra: tuple[str, ...] = ()) -> Service:
        """Read a service; every name that is its own must stand in it, or the file has changed."""
        found = service(name, self.variables)
        said = " ".join([*found.command, *found.health, *found.environment.values()])
        assert all(old in said for old in own), f"{name}: {own} in {said}"
        return Service(
            (*(self.put(word, own) for word in found.command), *extra),
            tuple(self.put(word, own) for word in found.health),
            {key: self.put(value, own) for key, value in found.environment.items()},
        )

    def start(self, name: str, found: Service, *program: str) -> None:
        with self._log(name).open("wb") as log:
            self.running[name] = subprocess.Popen(
                [*program, *found.command],
                env=self.environment(found),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self, found: Service) -> subprocess.CompletedProcess[str]:
        """Run a health check once, as an engine does."""
        return subprocess.run(
            found.health,
            env=self.environment(found),
            capture_output=True,
            text=True,
            check=False,
        )

    def wait(self, name: str, found: Service) -> None:
        """Wait until the health check is content."""

        def is_well() -> bool:
            done = self.check(found)
            alive = name not in self.running or self.running[name].poll() is None
            assert alive, f"{name}: {done.stdout}{done.stderr}{self._said(name)}"
            return done.returncode == 0

        wait_until(is_well, lambda: f"{name}: {self._said(name)}", pause=0.5)

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=120)

    def _said(self, name: str) -> str:
        return self._log(name).read_text(errors="replace") if name in self.running else ""

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def environment(self, found: Service) -> dict[str, str]:
        """Return what a command of a service sees: nothing of ours but its programs."""
        kept = ("LANG", "PIP_CERT", "SSL_CERT_FILE", "TMPDIR")
        own = {key: os.environ[key] for key in kept if key in os.environ}
        return {
            **own,
            "HOME": str(self.folder),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            **self.extra,
            **found.environment,
        }
