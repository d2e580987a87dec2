"""Latents and embeddings are computed once for all trials, which see the same with and without."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from passes_here import Killed, PassHere
from t2v_world import random_base, write_clips

from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import DenoisingConfig, PromptMatchConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport, Spoil
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import growing
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import Prepared, Preparing, TrialData, TrialTask
from djsandbox_ray.trials.growing import Growth
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.t2v import base_folder
from djsandbox_ray.trials.t2v.base_folder import Prompter
from djsandbox_ray.trials.t2v.codec import load_codec
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.denoisers import Prompts, Wan
from djsandbox_ray.trials.t2v.encoding import LATENTS, PROMPTS, STILL, of_set
from djsandbox_ray.trials.t2v.family import T2v
from djsandbox_ray.trials.t2v.latents import StoredLatents
from djsandbox_ray.trials.t2v.objective import ComputedLatents, PromptBook
from djsandbox_ray.trials.t2v.stored_prompts import StoredFirst, StoredPrompts, prompt_batch
from djsandbox_ray.trials.t2v.training_clips import Clips

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, FRAMES, SIDE = 14, 5, 16
DRAWN: dict[Spoil | None, Any] = {None: range(8), "captions": range(4, 10), "frames": (2, 3)}


class World:
    """Clips, a base, and a storage without Ray.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clip = {"frames": FRAMES, "size": SIDE}
        self.train = write_clips(folder / "train", ROWS, seed=1, **clip)
        self.judged = write_clips(folder / "judged", 6, seed=2, **clip)
        self.captions = self.train.column("text").to_pylist()
        self.base = random_base(folder / "base", self.captions)
        self.passing = PassHere()

    def config(self, **changes: Any) -> T2vModelConfig:
        settings = {
            "base": {"path": str(self.base)},
            "frames": FRAMES,
            "size": [SIDE, SIDE],
            "stride": 1,
            "prompt_tokens": 16,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "lora": {"rank": 2},
            "precision": "fp32",
            **changes,
        }
        return T2vModelConfig(type="t2v", **settings)

    def suite(self) -> Suite:
        data = EvaluationSet.read("judged", self.judged.uri)
        kinds = [DenoisingConfig(type="denoising", limit=4), PromptMatchConfig(type="prompt_match")]
        return Suite(kinds, [data, data])

    def prepare(
        self,
        storage: Path,
        drawn: Mapping[Spoil | None, Any] = DRAWN,
        **changes: Any,
    ) -> Prepared:
        growth = Growth(1, 0, NodeKind(), "here", lambda *_: None, lambda _: None, lambda _: None)
        rows = {spoil: np.array(some, np.int64) for spoil, some in drawn.items()}
        work = Preparing(Storage(str(storage)), "dataset-1", rows, self.suite(), growth)
        return T2v(self.config(**changes)).prepare(replace(self.data, preparing=work))

    @property
    def data(self) -> TrialData:
        return TrialData(self.train.uri, {"judged": self.judged.uri}, base=str(self.base))

    @property
    def said(self) -> set[str]:
        """What models are told of what is :data:`DRAWN`."""
        return {"", *self.captions[:10], *self.judged.column("text").to_pylist()}

    def run(self, folder: Path, data: TrialData, **changes: Any) -> list[RungReport]:
        suite, rows = self.suite(), np.arange(8)
        task = TrialTask(
            seed=3,
            rows=rows,
            captions=changes.pop("captions", rows),
            rungs=(8, 20),
            cpus=1,
            gpus=0,
            checkpoint=Checkpoint(str(folder), "trial"),
            group=Group(),
            evaluate=lambda model, samples=None: suite.run(model),
            spoil=changes.pop("spoil", None),
        )
        return list(T2v(self.config(**changes)).train(task, data))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("t2v"))


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    made.passing = PassHere()
    monkeypatch.setattr(growing, "run_pass", made.passing)
    monkeypatch.setattr(growing, "_TASK", 4)
    return made


def test_what_trials_read_is_computed_once(world: World, tmp_path: Path) -> None:
    prepared = world.prepare(tmp_path)
    stored = prepared.value.stored
    assert set(stored) == {LATENTS, STILL, PROMPTS, of_set("judged")}
    assert prepared.value.preparing is None
    assert prepared.cpu_seconds == 3 * 0.5  # one pass for four tables
    assert prepared.gpu_seconds == 0
    passes = world.passing.taken()
    said = world.said
    assert passes == [10 + 2 + 6 + len(said)]
    assert world.prepare(tmp_path).value.stored == stored
    assert world.passing.taken() == []
    # Another study draws two rows more.
    world.prepare(tmp_path, {None: range(4, 12)})
    assert world.passing.taken() == [2 + len({*world.captions[10:12]} - said)]


def test_what_is_stored_is_what_is_computed(world: World, tmp_path: Path) -> None:
    stored = world.prepare(tmp_path).value.stored
    codec, shape = load_codec(world.base / "vae", "cpu"), ClipShape(FRAMES, (SIDE, SIDE))
    for name, rows, still in ((LATENTS, np.arange(10), False), (STILL, np.array([2, 3]), True)):
        clips = Clips(world.train.uri, shape, rows, still=still)
        every = np.arange(len(rows))
        expected = ComputedLatents(clips, codec).take(every)
        assert np.array_equal(StoredLatents(stored[name], rows).take(every), expected)
    texts = [world.captions[3], "", world.captions[0], world.captions[3]]
    found = StoredPrompts(stored[PROMPTS]).take(texts)
    own = Prompter(world.base, Wan, 16, "cpu")(texts)
    assert torch.allclose(found.embeddings, own.embeddings, atol=1e-6)
    assert found.mask is found.pooled is None
    with pytest.raises(BadInput, match="no embedding of 'a bird'"):
        StoredPrompts(stored[PROMPTS]).take(["", "a bird"])


def test_a_kill_loses_what_was_at_work(world: World, tmp_path: Path) -> None:
    world.passing.last = 1
    with pytest.raises(Killed):
        world.prepare(tmp_path)
    (done,) = world.passing.taken()
    assert done > 0
    world.passing.last = 1 << 10
    world.prepare(tmp_path)
    assert world.passing.taken() == [10 + 2 + 6 + len(world.said) - done]


@pytest.mark.parametrize("spoil", [None, "frames"])
def test_a_trial_learns_the_same_of_what_is_stored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil | None
) -> None:
    plain = world.run(tmp_path / "plain", world.data, spoil=spoil)
    data = world.prepare(tmp_path, {spoil: range(8)}).value
    # Of a base in another folder, this process has nothing in memory.
    elsewhere = shutil.copytree(world.base, tmp_path / "base")

    def load(*_: Any) -> Any:
        raise AssertionError("the text encoder is not needed")

    monkeypatch.setattr(base_folder, "prompt_pipeline", load)
    found = world.run(tmp_path / "stored", replace(data, base=str(elsewhere)), spoil=spoil)
    for one, other in zip(plain, found, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)


def test_nothing_is_stored_where_it_would_not_be_shared(world: World, tmp_path: Path) -> None:
    assert T2v(world.config()).stored_bytes() == {
        LATENTS: 2 * 12 * 2 * 4 * 4,
        PROMPTS: 16 * 64 * 4,
    }
    assert T2v(world.config(precision="bf16")).stored_bytes()[PROMPTS] == 16 * 64 * 2
    windows = world.config(window="random", prompts="compute")
    assert T2v(windows).stored_bytes() == {}
    assert T2v(world.config(latents="compute", prompts="compute")).stored_bytes() == {}
    assert T2v(windows).identity() == T2v(world.config(window="random")).identity()
    stored = world.prepare(tmp_path, window="random").value.stored
    assert set(stored) == {PROMPTS, of_set("judged")}
    assert set(world.prepare(tmp_path, latents="compute").value.stored) == {PROMPTS}


def test_half_precision_is_kept_as_it_is(tmp_path: Path) -> None:
    import lance

    torch.manual_seed(0)
    values = torch.randn(2, 3, 4).bfloat16().float()
    made = Prompts(
        values, torch.tensor([[1, 1, 0], [1, 0, 0]]), torch.randn(2, 5).bfloat16().float()
    )
    uri = str(tmp_path / "table.lance")
    batch = prompt_batch(["one", "two"], made, half=True)
    lance.write_dataset(batch, uri, schema=batch.schema)
    found = StoredPrompts(uri).take(["two", "one"])
    for name in ("embeddings", "mask", "pooled"):
        assert getattr(found, name).equal(getattr(made, name)[[1, 0]])
        assert getattr(found, name).dtype == getattr(made, name).dtype
    assert len(batch.column(1)[0].as_py()) < 2 * 3 * 4 + 8 * 3 + 2 * 5 + 300


def test_prompts_that_are_many_are_read_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lance

    from djsandbox_ray.trials.t2v import stored_prompts

    texts = ["", *(f"clip {number}" for number in range(6))]
    made = Prompts(torch.arange(7 * 6, dtype=torch.float32).reshape(7, 2, 3))
    uri = str(tmp_path / "table.lance")
    batch = prompt_batch(texts, made, half=False)
    lance.write_dataset(batch, uri, schema=batch.schema)

    def otherwise(some: Any) -> Prompts:
        return Prompts(torch.full((len(some), 2, 3), -1.0))

    told = StoredFirst(StoredPrompts(uri), otherwise)
    mixed = told(["clip 2", "clip 9", "clip 2", ""]).embeddings
    assert mixed[0].equal(made.embeddings[3])
    assert mixed[2].equal(mixed[0])
    assert mixed[1].eq(-1).all()
    assert mixed[3].equal(made.embeddings[0])
    captions = ["clip 5", "clip 0", "clip 5"]
    held = told.book(captions)
    assert type(held) is PromptBook
    monkeypatch.setattr(stored_prompts, "_HELD_BYTES", 3)
    read = told.book(captions)
    assert type(read) is not PromptBook
    for book in (held, read):
        places = book.places(["clip 0", "clip 5", ""])
        assert book.take(places).embeddings.equal(made.embeddings[[1, 6, 0]])
    # What is not stored has to be encoded, and then all of it is in memory.
    assert type(told.book(["clip 9"])) is PromptBook
