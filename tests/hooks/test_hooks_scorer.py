"""The scorer is known by what its weights hang on; of runs that share it one trains it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from damages import DAMAGES
from PIL import Image
from planted_world import context_of
from tasks_here import Here

from djsandbox_ray.hooks import scorer
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.scorer import TrainScorer
from djsandbox_ray.identity import canonical, sample_digest
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import shared_folder
from djsandbox_ray.trials.clip.arch import load_arch
from djsandbox_ray.trials.clip.family import Clip
from djsandbox_ray.trials.clip.scorer import ScorerConfig
from djsandbox_ray.trials.family import OtherNumbers

ROWS = 8
CLIP = {"type": "clip", "batch_size": 4}
TRUSTED = {"type": "shapes", "samples": ROWS}


def section(**changes: Any) -> dict[str, Any]:
    return {"dataset": TRUSTED, "model": CLIP, "budget": 8, **changes}


def identity(storage: Storage, **changes: Any) -> bytes:
    """Return what a scorer is known by."""
    context, _ = context_of(storage, scorer=section(**changes))
    return canonical(TrainScorer(context).identity())


def test_the_device_and_the_precision_are_in_its_id(storage: Storage) -> None:
    on_gpus, half = {"gpus_per_worker": 0.5}, {**CLIP, "precision": "bf16"}
    on_cpus = identity(storage)
    assert identity(storage, model={**CLIP, "precision": "fp32"}) == on_cpus
    assert identity(storage, resources={"cpus_per_worker": 2}) == on_cpus
    others = {
        identity(storage, resources=on_gpus),
        identity(storage, model=half),
        identity(storage, resources=on_gpus, model={**CLIP, "precision": "fp32"}),
    }
    assert len({on_cpus, *others}) == 4


def test_the_libraries_are_in_its_id(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for version in ("2.14.1", "2.14.2+cpu", "2.15.0"):
        monkeypatch.setattr("djsandbox_ray.trials.family.version", lambda _, now=version: now)
        found.append(identity(storage))
    assert found[0] == found[1] != found[2]


def test_an_architecture_is_known_by_its_content(storage: Storage, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.json" for name in ("one", "two")]
    for path in paths:
        path.write_text(json.dumps(load_arch("tiny")))
    found = {identity(storage, model={**CLIP, "arch": str(path)}) for path in paths}
    assert found == {identity(storage)}


@pytest.fixture
def trusted(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that were ingested before."""
    images = []
    for pixels in np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
    texts = [f"number {row}" for row in range(ROWS)]
    digests = [sample_digest(*pair) for pair in zip(images, texts, strict=True)]
    table = "datasets/dataset-trusted/samples.lance"
    Path(storage.uri(table)).parent.mkdir(parents=True)
    pairs = pa.table({"image": images, "text": texts, "digest": digests})
    lance.write_dataset(pairs, storage.uri(table))
    ingested = Dataset("dataset-trusted", table, ROWS, 0)
    monkeypatch.setattr(scorer, "ingest", lambda *_, **__: ingested)


@pytest.mark.usefixtures("here", "trusted")
def test_it_says_what_its_weights_hang_on(storage: Storage) -> None:
    context, _ = context_of(storage, scorer=section())
    made = TrainScorer(context).run()
    assert made is not None
    promised = Clip(ScorerConfig.model_validate(section()).model).resolved(0).numerics(0)
    assert storage.read_sealed(f"{made.path}/scorer.json")["numerics"] == promised
    assert promised["device"] == "cpu"


@pytest.mark.usefixtures("here", "trusted")
def test_a_node_with_other_libraries_trains_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arrived() -> None:
        monkeypatch.setattr("djsandbox_ray.trials.family.version", lambda _: "1.0")

    monkeypatch.setattr(Here, "arrived", staticmethod(arrived))
    context, _ = context_of(storage, scorer=section())
    with pytest.raises(OtherNumbers, match=r"has .*torch 1\.0.*, the driver .*torch "):
        TrainScorer(context).run()
    assert not [*Path(storage.url).rglob("model.safetensors")]


SECTION = {"dataset": {"type": "shapes", "samples": 100}, "budget": 100}
INGESTED = Dataset("dataset-trusted", "datasets/dataset-trusted/samples.lance", 100, 0)


class Training:
    """Stands for the training; counts, and says when it begins."""

    def __init__(self) -> None:
        self.times = 0
        self.begun: Callable[[], object] = lambda: None

    def __call__(self, uri: str, rows: int, config: Any, arch: Any, folder: Path, _: Any) -> float:
        self.times += 1
        self.begun()
        (folder / "model.safetensors").write_bytes(b"weights")
        return 0.5


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are done in this process, and nobody waits long for who trains."""
    for module in (scorer, shared_folder):
        monkeypatch.setattr(module, "ray", Here())
    monkeypatch.setattr(scorer, "outcome", lambda *_: "100 samples")
    monkeypatch.setattr(Context, "await_room", lambda *_: None)
    monkeypatch.setattr(lease, "_LOOK", 0.01)


@pytest.fixture
def training(here: None, monkeypatch: pytest.MonkeyPatch) -> Training:
    made = Training()
    monkeypatch.setattr(scorer, "train_scorer", made)
    monkeypatch.setattr(scorer, "ingest", lambda *_, **__: INGESTED)
    return made


def hook(storage: Storage) -> TrainScorer:
    context, _ = context_of(storage, scorer=SECTION)
    return TrainScorer(context)


def test_what_is_whole_is_not_trained_again(storage: Storage, training: Training) -> None:
    first = hook(storage).run()
    assert hook(storage).run() == first
    assert training.times == 1
    assert hook(storage).broken(first) == {}


@pytest.mark.parametrize("name", ["model.safetensors", "scorer.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_the_model_is_mended(
    storage: Storage, training: Training, damage: str, name: str
) -> None:
    first = hook(storage).run()
    path = f"{first.path}/{name}"
    before = storage.read_bytes(path)
    DAMAGES[damage](Path(storage.uri(path)))
    assert [*hook(storage).broken(first)] == [path]
    assert hook(storage).run() == first
    assert training.times == 2
    assert storage.read_bytes(path) == before
    assert hook(storage).broken(first) == {}


def test_steps_of_a_process_that_was_killed_behind_the_marker_go(
    storage: Storage, training: Training
) -> None:
    made = hook(storage).run()
    left = f"trials/{made.id}/alone@000000/8/weights.pt"
    for path in (left, "trials/another/alone@000000/8/weights.pt"):
        storage.write_bytes(path, b"weights")
    assert hook(storage).run() == made
    assert training.times == 1
    assert storage.names("trials") == ["another"]


def test_a_second_run_waits_and_takes_the_model_of_the_first(
    storage: Storage, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, waited_for = threading.Event(), threading.Event()
    said: list[str] = []

    def begun() -> None:
        at_work.set()
        assert waited_for.wait(60), "nobody waits for who trains"

    def say(line: str) -> None:
        if line.endswith("and waiting for it"):
            said.append(line)
            waited_for.set()

    training.begun = begun
    with ThreadPoolExecutor() as threads:
        first = threads.submit(hook(storage).run)
        assert at_work.wait(60)
        training.begun = waited_for.set
        second = hook(storage)
        monkeypatch.setattr(second, "note", say)
        assert second.run() == first.result()
    assert training.times == 1
    assert second.spent.samples == 0
    (line,) = said
    assert line.startswith("scorer: the scorer scorer-")


def test_who_was_taken_for_dead_trains_no_further(
    storage: Storage, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: lease.Lease) -> None:
        raise lease.Lost("taken over")

    monkeypatch.setattr(Here, "looks", 1)
    monkeypatch.setattr(lease.Lease, "check", check)
    with pytest.raises(lease.Lost):
        hook(storage).run()
