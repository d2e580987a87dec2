"""What may happen to a file: all that tests do to one, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def empty(file: Path) -> None:
    file.write_bytes(b"")


def half(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flip(file: Path) -> None:
    """Change one bit in the middle: in a text, a letter or digit becomes another one."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def other(file: Path) -> None:
    file.write_bytes(b"{}")


def gone(file: Path) -> None:
    file.unlink()


DAMAGES: dict[str, Callable[[Path], None]] = {
    damage.__name__: damage for damage in (empty, half, flip, other, gone)
}
