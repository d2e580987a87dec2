"""A run of all tests that was ended, or failed, goes on with those that have not passed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


class Resume:
    """Notes which tests pass, and leaves them out the next time.

    Args:
        file: with their ids, a line each; it is gone when all have passed.
        given: what the process that others are started by has told this one; None in the former.
    """

    def __init__(self, file: Path, given: Mapping[str, Any] | None) -> None:
        self._file, self._notes = file, given is None
        if given is not None:  # all processes leave out the same, however late they start
            self._before: list[str] = given["passed"]
        else:
            self._before = file.read_text().splitlines() if file.exists() else []
        self._passed: dict[str, bool] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell another process what to leave out."""
        node.workerinput["passed"] = self._before

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what has passed."""
        before = {*self._before}
        left_out = [item for item in items if item.nodeid in before]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in before]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test when all of it has passed; one that was skipped is tried again."""
        name = report.nodeid
        self._passed[name] = report.passed and self._passed.get(name, report.when == "setup")
        if self._notes and report.when == "teardown" and self._passed.pop(name):
            with self._file.open("a") as file:
                file.write(f"{name}\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many were left out."""
        if self._before:
            said = f"{len(self._before)} tests passed before and were not run again"
            terminalreporter.write_line(said)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Begin anew after a run without a failure."""
        if self._notes and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            self._file.unlink(missing_ok=True)
