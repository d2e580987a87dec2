"""What has every job cost, and all of them together?"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from pydantic import TypeAdapter

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import to_json
from djsandbox_ray.records import Cost, Ledger

_COST = TypeAdapter(Cost)
_LEDGER = "ledger"


class AddUp(Hook):
    """Writes ``ledger.json``."""

    VERSION = 1

    def identity(self) -> Any:
        """What the runner has noted down of the jobs before this one."""
        path = self.path("costs.json")
        noted = self.storage.read_sealed(path) if self.storage.exists(path) else {}
        return list(takewhile(lambda entry: entry["hook"] != _LEDGER, noted.values()))

    def run(self) -> Ledger:
        """Write one entry per job, and the total."""
        fields = Cost.__dataclass_fields__
        costs = [
            _COST.validate_python({name: entry[name] for name in fields})
            for entry in self.identity()
        ]
        content = to_json(costs)
        path = self.write_sealed("ledger.json", content)
        return Ledger(content_id("ledger", content), path)
