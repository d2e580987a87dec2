"""What the tower sees is computed once for all trials, which see the same with and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_world import BUDGET, FIXED, PIXELS, Tables, asked, config, task, write_fine, write_mixed
from passes_here import PassHere
from pydantic import ValidationError

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.caption_nll import CaptionNllConfig
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport, Spoil
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import growing
from djsandbox_ray.trials.conversations import images_of
from djsandbox_ray.trials.family import Prepared, Preparing, TrialData
from djsandbox_ray.trials.growing import Growth
from djsandbox_ray.trials.llava.base_folder import load_base
from djsandbox_ray.trials.llava.config import LlavaModelConfig
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.llava.features import FEATURES, MOST, StoredFeatures, of_table
from djsandbox_ray.trials.llava.modules import Reader
from djsandbox_ray.trials.llava.pixels import Squares

EACH = 4 * 24
"""Numbers of an image: tokens and width of the tower."""
FINETUNE, TRUSTED = of_table("finetune"), of_table("trusted")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class World:
    """What trials read, and a storage without Ray.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.tables = Tables.write(folder)
        self.mixed = write_mixed(folder / "mixed")
        self.passing = PassHere()

    @property
    def data(self) -> TrialData:
        return self.tables.data(fixed={"finetune": self.mixed.uri})

    def config(self, **changes: Any) -> LlavaModelConfig:
        return config(self.tables, {"micro_batch": 3}, **changes)

    def prepare(self, storage: Path, drawn: Mapping[Spoil | None, Any], **changes: Any) -> Prepared:
        growth = Growth(1, 0, NodeKind(), "here", lambda *_: None, lambda _: None, lambda _: None)
        rows = {spoil: np.array(some, np.int64) for spoil, some in drawn.items()}
        trusted = EvaluationSet.read("trusted", self.tables.trusted.uri)
        suite = Suite([CaptionNllConfig(type="caption_nll", limit=5)], [trusted])
        place, fixed = Storage(str(storage)), {"finetune": "dataset-2"}
        work = Preparing(place, "dataset-1", rows, suite, growth, fixed)
        family = Llava(self.config(**changes)).resolved(0)
        return family.prepare(replace(self.data, preparing=work))

    def run(self, folder: Path, data: TrialData) -> tuple[RungReport, dict[str, Any]]:
        """Train, and return the report and the weights at the end."""
        kept: dict[str, Any] = {}
        trusted = EvaluationSet.read("trusted", self.tables.trusted.uri)

        def evaluate(model: Any, samples: int | None = None) -> dict[str, float]:
            state = model._model.state_dict()
            kept.update({name: value.clone() for name, value in state.items()})
            said = model.answer(asked(self.tables)[:6])
            nll = model.nll(trusted, trusted.some(5))
            return {"tokens": float(sum(one.tokens for one in said)), "nll": float(nll.nll.sum())}

        work = task(self.tables, folder, evaluate)
        (report,) = Llava(self.config()).resolved(0).train(work, data)
        return report, kept


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    made.passing = PassHere()
    monkeypatch.setattr(growing, "run_pass", made.passing)
    return made


def test_what_the_tower_sees_is_computed_once(world: World, tmp_path: Path) -> None:
    prepared = world.prepare(tmp_path, {None: range(30), "captions": range(25, 35)})
    stored = prepared.value.stored
    assert set(stored) == {FEATURES, FINETUNE, TRUSTED}
    assert prepared.value.preparing is None
    assert prepared.cpu_seconds == 3 * 0.5  # one pass for three tables
    assert world.passing.taken() == [35 + 32 + 5]
    # Also of rows without an image it is known that nothing lacks.
    assert world.prepare(tmp_path, {None: range(30)}).value.stored == stored
    assert world.passing.taken() == []
    assert world.prepare(tmp_path, {None: range(40)}).value.stored == stored
    assert world.passing.taken() == [5]
    other = world.prepare(tmp_path, {None: range(4)}, aspect="pad").value.stored
    assert other[FEATURES] != stored[FEATURES]
    assert other[FINETUNE] == stored[FINETUNE]


def test_what_is_stored_is_what_the_tower_sees(world: World, tmp_path: Path) -> None:
    stored = world.prepare(tmp_path, {None: range(8)}).value.stored
    reader = Reader(load_base(world.tables.base).llava)
    for name, table, rows in (
        (FEATURES, world.tables.pairs, [3, 0, 3, 7]),
        (FINETUNE, world.mixed, [20, 2]),
    ):
        files = images_of(table, rows)
        found = StoredFeatures(stored[name]).of(rows, files)
        assert [len(one) for one in found] == [len(one) for one in files]
        squares = Squares(PIXELS, "crop").of(rows, files)
        for one, other in zip(chain(*found), chain(*squares), strict=True):
            pixels = PIXELS.normalised(torch.from_numpy(other[None].copy()))
            assert np.allclose(one, reader.features(pixels)[0].numpy(), rtol=0, atol=1e-6)
    assert StoredFeatures(stored[FEATURES]).holds([7, 0])
    assert not StoredFeatures(stored[FEATURES]).holds([7, 8])
    with pytest.raises(BadInput, match="1 of 2 keys are not there, such as 8"):
        StoredFeatures(stored[FEATURES]).of([1, 8], [(b"",), (b"",)])


def test_a_trial_learns_the_same_of_what_is_stored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of conversations without an image, too; questions are about rows that nobody has stored."""
    plain, alone = world.run(tmp_path / "plain", world.data)
    data = world.prepare(tmp_path, {None: range(30)}).value
    looked: list[int] = []
    features = Reader.features

    def looking(self: Reader, pixels: Any) -> Any:
        looked.append(len(pixels))
        return features(self, pixels)

    monkeypatch.setattr(Reader, "features", looking)
    found, kept = world.run(tmp_path / "stored", data)
    assert sum(looked) == 6, "of the questions alone"
    assert found.samples == plain.samples == BUDGET + FIXED
    assert found.loss == pytest.approx(plain.loss, rel=1e-6)
    assert found.metrics == pytest.approx(plain.metrics, rel=1e-4)
    for name, value in alone.items():
        # What rounding leaves of a gradient next to zero AdamW enlarges: a hundredth of a step.
        assert torch.allclose(value, kept[name], rtol=0, atol=1e-5), name


def test_bfloat16_is_stored_in_it(world: World, tmp_path: Path) -> None:
    changes = {"precision": "bf16", "frozen": "bf16"}
    stored = world.prepare(tmp_path, {None: range(3)}, **changes).value.stored
    looks = StoredFeatures(stored[FEATURES])
    ((one,), _) = looks.of([2, 0], [(b"",), (b"",)])
    assert one.dtype == np.int16
    found = looks.given(torch.from_numpy(one[None].copy()))
    assert found.dtype == torch.bfloat16
    image = images_of(SampleTable(world.tables.pairs.uri), [2])[0][0]
    pixels = PIXELS.normalised(torch.from_numpy(PIXELS.square(image, "crop")[None].copy()))
    seen = Reader(load_base(world.tables.base).llava).features(pixels)
    assert torch.allclose(found.float(), seen, rtol=0.1, atol=0.1)


def test_it_is_stored_where_it_is_small(world: World, tmp_path: Path) -> None:
    family = Llava(world.config()).resolved(0)
    assert family.stored_bytes(10) == {FEATURES: 4 * EACH}
    half = Llava(world.config(precision="bf16", frozen="bf16"))
    assert half.stored_bytes(10) == {FEATURES: 2 * EACH}
    most = MOST // (4 * EACH)
    assert family.stored_bytes(most)
    assert not family.stored_bytes(most + 1)
    assert not family.stored_bytes()
    assert Llava(world.config(features="store")).resolved(0).stored_bytes(most + 1)
    assert not Llava(world.config(features="compute")).stored_bytes(1)
    never = Llava(world.config(features="compute")).resolved(0)
    assert never.identity() == family.identity()
    fine = {"type": "mining", "tower": str(write_fine(tmp_path / "fine")), "size": 64}
    assert not Llava(world.config(projector=fine)).stored_bytes(1)
    with pytest.raises(ValidationError, match="features: store: of a second tower's maps nothing"):
        world.config(projector=fine, features="store")
