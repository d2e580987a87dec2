"""Stands for Ray where a scorer or a base is made: tasks are done in the process that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Here:
    """What making a shared folder uses of Ray; a task is done at once, unless it is delayed."""

    looks = 0
    """How often a task is not yet done."""
    arrived: Callable[[], object] = staticmethod(lambda: None)
    """Called where a task begins: on the node that it runs on."""

    def remote(self, **_: object) -> type[_Task]:
        return _Task

    def wait(self, tasks: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        self.looks -= 1
        return ([], tasks) if self.looks >= 0 else (tasks, [])

    def get(self, done: Any) -> Any:
        return done


class _Task:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def options(self, **_: object) -> _Task:
        return self

    def remote(self, *args: Any, **named: Any) -> Any:
        Here.arrived()
        return self._function(*args, **named)
