"""Sample tables as ingest writes them, without Ray."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from djsandbox_ray.dataset.fragments import (
    Manifest,
    add_row_ids,
    commit,
    commit_row_ids,
    known_part,
    write_shard,
)
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Item, Shard
from djsandbox_ray.storage.store import Storage


def written(samples: list[Item], folder: Path, wide: bool = True) -> tuple[SampleTable, Manifest]:
    """Write samples as one shard."""
    storage = Storage(str(folder))
    shard = Shard("s", None, Listed(samples))
    row = {"index": 0, "name": "s", "shard": pickle.dumps(shard), "wide": wide}
    place = {"storage": storage, "folder": "staging"}
    manifest = Manifest(**json.loads(write_shard(row, table="x.lance", **place)["manifest"]))
    assert Manifest(**json.loads(known_part(row, **place)["manifest"])) == manifest
    uri = storage.uri("x.lance")
    places = commit(uri, [manifest], wide)
    commit_row_ids(uri, [add_row_ids(one, uri=uri) for one in places])
    return SampleTable(uri), manifest


class Listed:
    """What a shard is to hold; can be pickled."""

    def __init__(self, items: list[Item]) -> None:
        self.items = items

    def __call__(self):
        return iter(self.items)
