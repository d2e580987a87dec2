"""Adds up what every job before it cost."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from pydantic import TypeAdapter

from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger import to_json
from djsandbox_ray.records import Cost, Ledger

_COST = TypeAdapter(Cost)
_NAME = "ledger"


class AddUp(Hook):
    """Writes ``ledger.json``."""

    def identity(self) -> Any:
        """What the runner has noted down of the jobs before this one."""
        path = f"{self.context.folder}/costs.json"
        noted = self.context.storage.read_json(path) if self.context.storage.exists(path) else {}
        return list(takewhile(lambda entry: entry["hook"] != _NAME, noted.values()))

    def run(self) -> Ledger:
        """Write one entry per job, and the total."""
        fields = Cost.__dataclass_fields__
        costs = [
            _COST.validate_python({name: entry[name] for name in fields})
            for entry in self.identity()
        ]
        content = to_json(costs)
        path = f"{self.context.folder}/ledger.json"
        self.context.storage.write_json(path, content)
        return Ledger(content_id("ledger", content), path)
