"""A small base is trained on trusted data alone; what trials stand on is made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_world import write_base, write_fine, write_pairs, write_talk
from pydantic import ValidationError
from recorded import check

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import IngestConfig
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.base import BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.conversations import asked
from djsandbox_ray.trials.foundation import Ground, broken_base
from djsandbox_ray.trials.llava.base import LlavaBase, LlavaBaseConfig
from djsandbox_ray.trials.llava.base_folder import load_base
from djsandbox_ray.trials.llava.config import LlavaModelConfig
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.llava.small import VERSION
from djsandbox_ray.trials.llava.text import Transcript
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION

SHAPES = {"type": "shapes", "samples": 40}
QUESTIONS = {"type": "shapes_questions", "samples": 40}


def small(**changes: Any) -> LlavaBase:
    train = {"dataset": SHAPES, "questions": QUESTIONS, "samples": 64, "batch_size": 16, **changes}
    return LlavaBase(LlavaBaseConfig(build="tiny", train=train))


class Cut(Checkpoint):
    """The checkpoint of a training whose process is killed at its third one."""

    def save(self, report: RungReport, write: Callable[[Path], None]) -> None:
        if len(self.reports()) == 2:
            raise KeyboardInterrupt
        super().save(report, write)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SampleTable]:
    folder = tmp_path_factory.mktemp("trusted")
    return {
        "pairs": write_pairs(folder / "pairs", 40, seed=7),
        "questions": write_talk(folder / "questions", 40, seed=8),
    }


def made(
    trusted: dict[str, SampleTable], folder: Path, checkpoint: type[Checkpoint] = Checkpoint
) -> dict[str, float]:
    """Make the base, in pieces where it is cut off."""
    (folder / "base").mkdir(parents=True, exist_ok=True)
    task = BaseTask(
        {name: table.uri for name, table in trusted.items()},
        folder / "base",
        lambda part: checkpoint(str(folder), part),
        cpus=1,
        gpus=0,
    )
    return small().make(task)


def test_a_small_base_knows_the_words_goes_on_where_it_was_cut_off_and_has_a_version(
    trusted: dict[str, SampleTable], tmp_path: Path
) -> None:
    losses = made(trusted, tmp_path / "whole")
    assert set(losses) == {"tower_loss", "language_loss"}
    base = load_base(tmp_path / "whole" / "base")
    words = base.words
    texts = trusted["pairs"].column("text").to_pylist()
    said = [
        turn.text.replace("<__dj__image>", "")
        for turns in trusted["questions"].turns(np.arange(40))
        for turn in turns
    ]
    unknown = words.tokenizer.unk_token_id
    assert not any(unknown in words.tokenizer(text)["input_ids"] for text in (*texts, *said))
    assert words.pixels.side == 32
    assert words.image_tokens == 16
    for template in ("plain", "chat"):
        script = Transcript(words.tokenizer, template, words.image_id, 16, 200)
        assert words.tokenizer.eos_token_id in script.ends
        assert (script.prompt(asked(1, "What?")) == words.image_id).sum() == 16
    with pytest.raises(KeyboardInterrupt):
        made(trusted, tmp_path / "cut", Cut)
    assert made(trusted, tmp_path / "cut") == losses
    check("llava base", f"{VERSION}.{LOOP_VERSION}", "trials/llava/small.py", losses)
    first, second = (
        (tmp_path / name / "base" / "model.safetensors").read_bytes() for name in ("whole", "cut")
    )
    assert first == second


def test_the_tower_is_taught_and_the_projector_left_empty(
    trusted: dict[str, SampleTable], tmp_path: Path
) -> None:
    made(trusted, tmp_path)
    llava = load_base(tmp_path / "base").llava
    assert all(not value.any() for value in llava.model.multi_modal_projector.parameters())
    with torch.no_grad():
        seen = llava.model.vision_tower(torch.randn(1, 3, 32, 32)).last_hidden_state
    assert seen.shape == (1, 17, 96)


def test_words_that_the_data_lack_are_named(
    trusted: dict[str, SampleTable], tmp_path: Path
) -> None:
    base = small(words=("shape", "color"))
    (tmp_path / "base").mkdir()
    tables = {name: table.uri for name, table in trusted.items()}
    task = BaseTask(tables, tmp_path / "base", lambda part: Checkpoint(str(tmp_path), part), 1, 0)
    with pytest.raises(BadInput, match=r"row 0 of .* has no text under color in its meta data"):
        base.make(task)


def test_what_a_base_is_made_of_is_in_its_identity(tmp_path: Path) -> None:
    assert small().identity() == small(dataset={**SHAPES, "seed": 1}).identity()
    assert small().identity() != small(seed=1).identity()
    assert set(small().sources()) == {"pairs", "questions"}
    assert small().samples() == 128
    assert small().flops() > 0
    folders = [write_base(tmp_path / name) for name in ("one", "two")]
    found = [LlavaBase(LlavaBaseConfig(path=str(folder))).identity() for folder in folders]
    assert found[0] == found[1]
    weights = folders[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert LlavaBase(LlavaBaseConfig(path=str(folders[1]))).identity() != found[0]


def test_operations_are_counted_before_the_folders_are_there(tmp_path: Path) -> None:
    here, fine = write_base(tmp_path / "base"), write_fine(tmp_path / "fine")
    written = json.loads((here / "config.json").read_text())
    parts = {"vision_tower": "vision_config", "language_model": "text_config"}
    base = {"architecture": {name: written[config] for name, config in parts.items()}}
    mining: dict[str, Any] = {"type": "mining", "size": 64}
    mining["architecture"] = json.loads((fine / "config.json").read_text())

    def model(folder: Path, second: Path) -> Llava:
        settings = {
            "base": {"path": str(folder), **base},
            "projector": {**mining, "tower": str(second)},
        }
        return Llava(LlavaModelConfig.model_validate({"type": "llava", **settings}))

    lost = model(tmp_path / "no", tmp_path / "none")
    assert lost.flops_per_sample() == model(here, fine).flops_per_sample()
    assert model(here, fine).lost() == []
    assert lost.lost() == [
        f"base.path: there is no folder '{tmp_path}/no'",
        f"projector.tower: there is no folder '{tmp_path}/none'",
    ]
    base["architecture"]["vision_tower"] = {"model_type": "vision"}
    with pytest.raises(BadInput, match=r"architecture \{'model_type': 'vision'\}"):
        model(tmp_path / "no", tmp_path / "none").flops_per_sample()
    assert model(here, fine).flops_per_sample()  # the folders themselves are looked at
    base["architecture"]["vision_tower"] = {"hidden_size": 8}
    with pytest.raises(ValidationError, match="model_type is needed"):
        model(here, fine)


def test_trials_stand_on_one_foundation(ray_cluster: None, tmp_path: Path) -> None:
    path = str(write_base(tmp_path / "given"))
    finetune = {"dataset": {"type": "shapes_questions", "samples": 20}, "samples": 8}
    family = Llava(LlavaModelConfig(type="llava", base={"path": path}, finetune=finetune))
    storage, notes = Storage(str(tmp_path / "storage")), list[str]()

    def lay() -> Any:
        return Ground(storage, IngestConfig(), lambda *_: None, notes.append).lay(family)

    first, _ = lay()
    assert first.base.startswith("models/base-")
    assert first.fixed["finetune"].rows == 20
    assert not broken_base(storage, first.base)
    assert "base: made" in notes
    load_base(Path(storage.uri(first.base)))
    notes.clear()
    assert lay()[0] == first
    assert "base: made" not in notes
    Path(storage.uri(f"{first.base}/config.json")).write_text("{}")
    assert set(broken_base(storage, first.base)) == {f"{first.base}/config.json"}
    assert lay()[0] == first
    assert not broken_base(storage, first.base)
    other = Llava(LlavaModelConfig(type="llava", base={"path": path}))
    assert Ground(storage, IngestConfig(), lambda *_: None, notes.append).lay(other)[0].id not in (
        "",
        first.id,
    )
