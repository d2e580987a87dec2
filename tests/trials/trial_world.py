"""What the trial tests share."""

from __future__ import annotations

from dataclasses import dataclass

from djsandbox_ray.records import Dataset
from djsandbox_ray.storage import Storage


@dataclass(frozen=True)
class World:
    storage: Storage
    train: Dataset
    evaluation: Dataset

    def uri(self, dataset: Dataset) -> str:
        return self.storage.uri(dataset.table)
