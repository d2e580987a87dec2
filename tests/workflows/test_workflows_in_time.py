"""``djsandbox init --minutes``: a study that ends in time on the machine that there is."""

from __future__ import annotations

import pytest
from factories import minimal_document
from held_data import jsonl

from djsandbox_ray.config import RunConfig, checked, load_config
from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.clip.calibration import samples_per_second
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.workflows.foresight.plan import make_plan
from djsandbox_ray.workflows.in_time import Machine, fit

LAPTOP, SERVER = Machine(cpus=4), Machine(cpus=64, gpus=8)
SPEEDS = {"tiny": 1500.0, "small": 300.0, "ViT-B-32": 900.0}


def speed(arch: str, batch: int) -> float:
    return SPEEDS[arch]


@pytest.fixture
def config() -> RunConfig:
    document = minimal_document(evaluation__dataset__rows=[0, 40], trials__seeds=2)
    return checked(document, "test")


@pytest.mark.parametrize("machine", [Machine(cpus=2), LAPTOP, SERVER], ids=lambda one: one.text)
@pytest.mark.parametrize("minutes", [10, 30, 120])
@pytest.mark.parametrize("rows", [2_000, 1_000_000, None])
def test_what_is_chosen_ends_in_time(
    config: RunConfig, machine: Machine, minutes: int, rows: int | None
) -> None:
    found = fit(config, rows, minutes, machine, speed)
    assert 0 < found.minutes <= minutes
    assert found.arch in {arch for arch, _ in machine.models()}
    read = rows if found.rows is None else found.rows
    assert read is not None
    part = config.pools.draw_share / config.pools.buckets
    assert found.batch <= read * part, "a draw fills a batch"
    assert found.budget >= 50 * found.batch


def test_more_time_is_used_for_a_larger_model_then_for_more_samples(config: RunConfig) -> None:
    found = [fit(config, None, minutes, LAPTOP, speed) for minutes in (6, 30, 120)]
    assert [one.arch for one in found] == ["tiny", "small", "small"]
    assert found[1].budget < found[2].budget
    assert (found[1].rows or 0) < (found[2].rows or 0)


def test_few_data_are_not_learnt_by_heart(config: RunConfig) -> None:
    found = fit(config, 2_000, 600, LAPTOP, speed)
    assert found.rows is None, "all are read"
    draw = 2_000 * config.pools.draw_share / config.pools.buckets
    assert found.budget == pytest.approx(20 * draw, rel=0.01)
    assert found.minutes < 100


def test_too_little_time_says_how_much_is_needed(config: RunConfig) -> None:
    with pytest.raises(BadInput, match=r"--minutes 1 is too short .* on 4 CPUs: (\d+) are needed"):
        fit(config, None, 1, LAPTOP, lambda arch, batch: 50.0)


def test_a_model_without_room_gives_way_to_a_smaller_one(config: RunConfig) -> None:
    room = {"tiny"}

    def cramped(arch: str, batch: int) -> float:
        if arch not in room:
            raise MemoryError
        return SPEEDS[arch]

    assert fit(config, None, 600, SERVER, cramped).arch == "tiny"
    room.clear()
    with pytest.raises(BadInput, match="64 CPUs and 8 GPUs has no room for any model"):
        fit(config, None, 600, SERVER, cramped)


def test_a_machine_in_words() -> None:
    assert LAPTOP.text == "4 CPUs"
    assert SERVER.text == "64 CPUs and 8 GPUs"
    assert Machine(cpus=1).text == "1 CPU"
    assert (LAPTOP.each, LAPTOP.workers) == ((1, 0), 4)
    assert (SERVER.each, SERVER.workers) == ((4, 1), 8)


def test_a_few_steps_tell_how_fast_this_machine_is() -> None:
    pytest.importorskip("open_clip", reason="trains a CLIP")
    assert samples_per_second(ClipConfig(type="clip", arch="tiny", batch_size=8), 1, 0) > 0


def test_init_writes_what_this_machine_has_time_for(init, tmp_path) -> None:
    pytest.importorskip("open_clip", reason="trains a CLIP")
    jsonl(tmp_path / "data")
    said = init(str(tmp_path / "data"), "--minutes", "100000")
    assert "timing some steps of training on " in said
    config = load_config("data.yaml", (), str(tmp_path / "sandbox"))
    assert f"a budget of {config.trials.budget:,} samples" in said
    text = (tmp_path / "data.yaml").read_text()
    assert "# For 100000 minutes on " in text
    assert make_plan(config)


def test_minutes_are_for_trainings(init, tmp_path) -> None:
    (tmp_path / "texts.jsonl").write_text(
        "".join(f'{{"text": "line {number}"}}\n' for number in range(100))
    )
    with pytest.raises(BadInput, match="--minutes is for trainings, and none is written for texts"):
        init(str(tmp_path / "texts.jsonl"), "--minutes", "10")
    assert not list(tmp_path.glob("*.yaml"))
