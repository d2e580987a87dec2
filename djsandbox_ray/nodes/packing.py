"""How many groups of bundles fit onto nodes, counted as Ray counts. Pure.

A bundle, such as ``{"CPU": 2, "GPU": 0.5}``, must lie on one node; the bundles of a group may lie
on several, as Ray's strategy PACK allows. A fraction of a GPU is taken from one GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Amounts = Mapping[str, float]

_UNIT = 10_000  # Ray's own: amounts are exact to 1/10000


def groups_that_fit(
    bundles: Sequence[Amounts], nodes: Iterable[Amounts], most: int | None = None
) -> int:
    """Count the groups that fit onto nodes at once, up to ``most``.

    First fit of the bundles in decreasing order. For one group this is exact if its bundles are
    equal but for one small one; else a group that fits in some other order may be missed.

    Raises:
        ValueError: the group asks for nothing.
    """
    asked = sorted(map(_units, bundles), key=_size, reverse=True)
    if not any(asked):
        raise ValueError("a group of bundles that asks for nothing fits any number of times")
    rooms = [_Room(node) for node in nodes]
    count = 0
    while (most is None or count < most) and all(
        any(room.take(bundle) for room in rooms) for bundle in asked
    ):
        count += 1
    return count


def in_words(bundles: Iterable[Amounts]) -> str:
    """Say what bundles or nodes hold: ``2 x (1 CPU, 1 GPU) and 1 x (0.01 CPUs)``."""
    kinds = Counter(", ".join(_named(bundle)) or "no CPUs" for bundle in bundles)
    return " and ".join(f"{count} x ({kind})" for kind, count in kinds.items())


class _Room:
    """What is left of one node."""

    def __init__(self, node: Amounts) -> None:
        self._left = _units(node)
        whole, rest = divmod(self._left.pop("GPU", 0), _UNIT)
        self._gpus = [_UNIT] * whole + [rest] * (rest > 0)
        """Of each GPU by itself."""

    def take(self, bundle: Mapping[str, int]) -> bool:
        """Place a bundle here if there is room for it."""
        others = {name: amount for name, amount in bundle.items() if name != "GPU"}
        if any(self._left.get(name, 0) < amount for name, amount in others.items()):
            return False
        gpus = self._with(bundle.get("GPU", 0))
        if gpus is None:
            return False
        self._gpus = gpus
        for name, amount in others.items():
            self._left[name] -= amount
        return True

    def _with(self, amount: int) -> list[int] | None:
        """Return what is left of the GPUs after ``amount`` is taken; None if it is not there."""
        self._gpus.sort()  # the fullest GPU that has room: whole ones stay whole
        if amount < _UNIT:
            for index, left in enumerate(self._gpus):
                if left >= amount:
                    return [*self._gpus[:index], left - amount, *self._gpus[index + 1 :]]
            return None if amount else self._gpus
        whole = amount // _UNIT
        if len(self._gpus) < whole or self._gpus[-whole] < _UNIT:
            return None
        return [*self._gpus[:-whole], *[0] * whole]


def _units(bundle: Amounts) -> dict[str, int]:
    amounts = {name: round(amount * _UNIT) for name, amount in bundle.items()}
    return {name: amount for name, amount in amounts.items() if amount}


def _size(bundle: Mapping[str, int]) -> tuple[int, int, int]:
    return bundle.get("GPU", 0), bundle.get("CPU", 0), sum(bundle.values())


def _named(bundle: Amounts) -> list[str]:
    return [
        f"{amount:g} {name}" + "s" * (name in ("CPU", "GPU") and amount != 1)
        for name, amount in sorted(bundle.items(), key=lambda item: _order(item[0]))
        if amount and not _of_every_node(name)
    ]


def _order(name: str) -> tuple[bool, str]:
    return name not in ("CPU", "GPU"), name


def _of_every_node(name: str) -> bool:
    return name in ("memory", "object_store_memory") or name.startswith("node:")
