"""What is left of the making of a base goes, and nothing else does."""

from __future__ import annotations

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.foundation import clear_steps


def test_the_checkpoints_of_the_parts_of_a_base_that_is_there_go(storage: Storage) -> None:
    steps = [f"trials/{name}/alone@000000/4/x" for name in ("base-1-tower", "base-1-language")]
    others = ["trials/base-12-tower/alone@000000/4/x", "trials/trial-1/run@000001/4/x"]
    for path in (*steps, *others, "trials/trial-1.json"):
        storage.write_bytes(path, b"")
    clear_steps(storage, "base-1")
    clear_steps(storage, "base-1")
    assert storage.names("trials") == ["base-12-tower", "trial-1", "trial-1.json"]
