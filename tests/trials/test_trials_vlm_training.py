"""Models of three kinds learn what a stage says, and answer whatever else is asked beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from recorded import check
from vlm_world import BUDGET, FIXED, KINDS, VlmTables, config, picture, task

from djsandbox_ray.dataset.media import Turn
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.conversations import Conversations, described
from djsandbox_ray.trials.family import FAMILIES, TrialData
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION
from djsandbox_ray.trials.loop import AdditiveTraining
from djsandbox_ray.trials.vlm.answerer import VlmAnswerer
from djsandbox_ray.trials.vlm.base import load_vlm
from djsandbox_ray.trials.vlm.config import VlmConfig
from djsandbox_ray.trials.vlm.family import VERSION, Vlm
from djsandbox_ray.trials.vlm.joined import join
from djsandbox_ray.trials.vlm.modules import freeze_unreached, trial_model
from djsandbox_ray.trials.vlm.objective import ProcessedTokens
from djsandbox_ray.trials.vlm.text import Script

pytestmark = pytest.mark.usefixtures("one_thread")

PROJECTORS = {
    "idefics3": "connector",
    "qwen2_vl": "visual.merger",
    "internvl": "multi_modal_projector",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VlmTables]:
    return VlmTables.write(tmp_path_factory.mktemp("vlm"))


def trained(
    tables: VlmTables,
    folder: Path,
    settings: VlmConfig,
    data: TrialData | None = None,
    **other: Any,
) -> tuple[list[RungReport], dict[str, Any]]:
    """Train; return the reports, and all weights at the end."""
    kept: dict[str, Any] = {}

    def evaluate(model: VlmAnswerer, samples: int) -> dict[str, float]:
        kept.clear()
        kept.update({name: value.clone() for name, value in model._model.state_dict().items()})
        return {"samples": float(samples)}

    family = Vlm(settings).resolved(0)
    work = task(tables, folder, evaluate, **other)
    return list(family.train(work, data or tables.data())), kept


def saved(folder: Path) -> set[str]:
    """Return the names of the weights in the last checkpoint."""
    file = next((folder / "trials" / "trial").rglob("weights.pt"))
    return set(torch.load(file, weights_only=True)["model"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_learnt_however_it_is_cut(world: dict[str, VlmTables], kind: str) -> None:
    tables = world[kind]
    base = load_vlm(tables.base)
    base.model.requires_grad_(False)
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    told = Conversations(tables.pairs.uri, np.arange(4))
    script = Script(base.processor, 500)
    ends: list[dict[str, Any]] = []
    losses: list[list[float]] = []
    for micro in (None, 1, 3):
        settings = config(
            tables, train="full", micro_batch=micro, batch_size=4, learning_rate=1e-2, warmup=0
        )
        model = trial_model(base.model, settings, 0, "trials.model", {})
        objective = ProcessedTokens(model, told, script, "cpu", 0)
        training = AdditiveTraining(objective, 4, settings, 0, "cpu")
        losses.append([state.loss for state in training.run([4, 8, 12])])
        ends.append(training.weights())
    assert losses[0][-1] < 0.95 * losses[0][0]
    for other, weights in zip(losses[1:], ends[1:], strict=True):
        assert other == pytest.approx(losses[0], rel=1e-5)
        for name, value in ends[0].items():
            # A bias of keys changes no softmax: all that AdamW sees of it is rounding.
            if not name.endswith("k_proj.bias"):
                # Of a gradient next to zero AdamW sees mostly rounding: a hundredth of a step.
                assert torch.allclose(value, weights[name], atol=1e-4), name
    after = base.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_base_of_half_precision_is_trained_and_answers(
    world: dict[str, VlmTables], kind: str
) -> None:
    tables = world[kind]
    base = load_vlm(tables.base)
    base.model.to(torch.bfloat16).requires_grad_(False)
    half = {"precision": "bf16", "gradient_checkpointing": True, "micro_batch": 2}
    rate = {"batch_size": 4, "learning_rate": 1e-2, "warmup": 0}
    settings = config(tables, train="projector", **half, **rate)
    model = trial_model(base.model, settings, 0, "trials.model", {})
    told = Conversations(tables.pairs.uri, np.arange(4))
    script = Script(base.processor, 500)
    training = AdditiveTraining(
        ProcessedTokens(model, told, script, "cpu", 0), 4, settings, 0, "cpu"
    )
    first, _, last = (state.loss for state in training.run([4, 8, 12]))
    assert last < first
    assert all(value.dtype == torch.float32 for value in training.weights().values())
    sets = {"talk": tables.talk.uri}
    answers = VlmAnswerer(model, script, "What?", sets, "cpu", 0, half=True)
    assert len(answers.answer(tables.asked()[:2])) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_its_version_and_that_of_the_loop_stand_for_the_numbers(
    world: dict[str, VlmTables], tmp_path: Path, kind: str
) -> None:
    tables = world[kind]
    (report,), _ = trained(tables, tmp_path, config(tables, train="projector"))
    file = next((tmp_path / "trials" / "trial").rglob("weights.pt"))
    kept = torch.load(file, weights_only=True)["model"]
    found = {"loss": report.loss, "weights": [float(kept[name].norm()) for name in sorted(kept)]}
    places = "trials/vlm/family.py or trials/loop.py"
    check(f"vlm {kind}", f"{VERSION}.{LOOP_VERSION}", places, found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train", ["projector", "lora"])
def test_what_is_trained_and_kept_is_what_the_stage_says(
    world: dict[str, VlmTables], tmp_path: Path, kind: str, train: str
) -> None:
    tables = world[kind]
    (report,), weights = trained(tables, tmp_path, config(tables, train=train))
    assert report.samples == BUDGET
    assert np.isfinite(report.loss)
    base = load_vlm(tables.base).model.state_dict()
    changed = {
        name
        for name, value in base.items()
        if not torch.equal(
            value, weights.get(f"vlm.{name}", weights.get(f"vlm.{_inner(name)}", value))
        )
    }
    kept = saved(tmp_path)
    if train == "lora":
        assert not changed
        assert kept
        assert all("lora_" in name for name in kept)
        assert all(float(weights[name].abs().max()) > 0 for name in kept if "lora_B" in name)
    else:
        assert changed
        assert all(PROJECTORS[kind] in name for name in changed | kept)


def _inner(name: str) -> str:
    """Return the name that a weight has inside an adapter."""
    place, _, last = name.rpartition(".")
    return f"{place}.base_layer.{last}"


def test_stages_go_on_from_each_other_and_after_a_cut(
    world: dict[str, VlmTables], tmp_path: Path
) -> None:
    """The second stage freezes what the first has trained: it must keep it all the same."""
    tables = world["internvl"]
    settings = config(tables, {"train": "lora"}, train="projector")
    rungs = (BUDGET, BUDGET + FIXED)
    held = {name: one.clone() for name, one in load_vlm(tables.base).model.state_dict().items()}
    reports, whole = trained(tables, tmp_path / "whole", settings, rungs=rungs)
    assert [report.samples for report in reports] == [12, 20]
    moved = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(whole[f"vlm.{moved}"], held[moved])
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in whole.items())
    work = task(tables, tmp_path / "cut", lambda *_: {}, rungs=rungs)
    cut = Vlm(settings).resolved(0).train(work, tables.data())
    assert next(iter(cut)).samples == BUDGET
    cut.close()
    again, resumed = trained(tables, tmp_path / "cut", settings, rungs=rungs)
    assert [report.samples for report in again] == [rungs[1]]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_adapters_of_the_first_stage_stay_in_the_second(
    world: dict[str, VlmTables], tmp_path: Path
) -> None:
    tables = world["internvl"]
    base = load_vlm(tables.base).model.requires_grad_(False)
    settings = config(tables)
    first = trial_model(base, settings, 0, "trials.model", {})
    weights = {name: one + 1 for name, one in first.named_parameters() if one.requires_grad}
    second = trial_model(base, settings, 1, "trials.model", weights)
    found = dict(second.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    with pytest.raises(SandboxError, match="nothing goes on from what was trained of vlm"):
        trial_model(base, config(tables, train="full"), 1, "trials.model", weights)
    with pytest.raises(ValidationError, match="adapters of the first stage stay in the second"):
        config(tables, {"train": "full"})


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_hangs_on_nothing_else_that_is_asked(
    world: dict[str, VlmTables], kind: str
) -> None:
    tables = world[kind]
    questions = tables.asked()[:8]
    alone = answerer(tables, 1).answer(questions)
    assert [answer.key for answer in alone] == [question.key for question in questions]
    assert len({answer.text for answer in alone}) > 1
    assert answerer(tables, 5).answer(questions[::-1]) == alone[::-1]
    model = answerer(tables, 8)
    (answer,) = model.answer(questions[:1])
    assert answer == alone[0]
    assert answer.cut == (answer.tokens == 4)
    # The same, by the model itself, which is given all tokens so far each time.
    (prompt,) = model._prompts(questions[:1])
    ids = prompt.ids.tolist()
    while len(ids) < len(prompt.ids) + 4 and ids[-1] not in model._script.ends:
        marks = {
            name: torch.nn.functional.pad(values, (0, len(ids) - len(prompt.ids)))
            for name, values in prompt.marks.items()
        }
        with torch.no_grad():
            whole = model._model.vlm(input_ids=torch.tensor([ids]), **marks, **prompt.media)
        ids.append(int(whole.logits[0, -1].argmax()))
    said = [token for token in ids[len(prompt.ids) :] if token not in model._script.ends]
    assert (answer.text, answer.tokens) == (model._script.decode(said), len(said))


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_of_captions_is_the_mean_loss_of_transformers(
    world: dict[str, VlmTables], kind: str
) -> None:
    tables = world[kind]
    model = answerer(tables, 5)
    data = EvaluationSet.read("trusted", tables.trusted.uri)
    found = model.nll(data, [3, 0])
    told = Conversations(tables.trusted.uri, np.array([3, 0])).take(np.arange(2))
    for place, one in enumerate(told):
        sample = model._script.sample(one.turns, one.images)
        with torch.no_grad():
            loss = model._model.vlm(
                input_ids=torch.from_numpy(sample.ids[None]),
                labels=torch.from_numpy(sample.labels[None]),
                **sample.marks,
                **sample.media,
            ).loss
        assert found.tokens[place] == sample.targets
        assert found.nll[place] / sample.targets == pytest.approx(float(loss), rel=1e-5)


def answerer(tables: VlmTables, batch: int, max_tokens: int = 500) -> VlmAnswerer:
    base = load_vlm(tables.base)
    model = trial_model(base.model.requires_grad_(False), config(tables), 0, "trials.model", {})
    sets = {"talk": tables.talk.uri, "trusted": tables.trusted.uri}
    script = Script(base.processor, max_tokens)
    return VlmAnswerer(model, script, "Describe the image.", sets, "cpu", 0, batch)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_an_image_is_learnt_too(world: dict[str, VlmTables], kind: str) -> None:
    """Beside an image of which nothing is learnt: other workers may have images."""
    tables = world[kind]
    base = load_vlm(tables.base)
    settings = config(tables, train="projector")
    model = trial_model(base.model.requires_grad_(False), settings, 0, "trials.model", {})
    script = Script(base.processor, 500)
    said = script.sample((Turn("user", "a"), Turn("assistant", "b")), [])
    told = Conversations(tables.pairs.uri, np.arange(4))
    objective = ProcessedTokens(model, told, script, "cpu", 0)
    with_image = script.sample(described("a"), [picture(0)])
    cut = objective.split([with_image, said, said], 1)
    assert [len(one.targets) for one in cut] == [said.targets, said.targets, with_image.targets]
    assert [len(one.ids) for one in cut] == [2, 2, 1]
    assert all(one.media for one in cut)
    loss, _ = objective.loss(model.train(), cut[0])
    loss.backward()
    grads = [one.grad for one in model.parameters() if one.requires_grad]
    assert all(grad is not None and not grad.any() for grad in grads)
    alone = join([said], [0], 0)
    logits = model(alone.inputs, alone.places)
    plain = torch.nn.functional.cross_entropy(logits, alone.targets, reduction="sum")
    assert float(loss) == pytest.approx(float(plain), rel=1e-5)


def test_what_no_loss_reaches_is_not_trained(world: dict[str, VlmTables]) -> None:
    """Several workers would wait for its gradient."""
    tables = world["internvl"]
    base = load_vlm(tables.base)
    base.model.spare = torch.nn.Linear(2, 2)
    base.model.requires_grad_(False)
    sample = Script(base.processor, 500).sample(described("a"), [picture(0)])
    probe = join([sample], [0], 0)

    def model(pattern: str) -> Any:
        settings = config(tables, train="projector", projector=pattern)
        return trial_model(base.model, settings, 0, "trials.model", {})

    some = model(r"spare\.|linear_2\.")
    freeze_unreached(some, probe, False, "trials.model")
    trained = {name for name, one in some.named_parameters() if one.requires_grad}
    place = "vlm.model.multi_modal_projector.linear_2"
    assert trained == {f"{place}.weight", f"{place}.bias"}
    assert all(one.grad is None for one in some.parameters())
    with pytest.raises(BadInput, match=r"trials.model.train: no answer hangs on anything"):
        freeze_unreached(model(r"spare\."), probe, False, "trials.model")


def test_what_cannot_be_trained_or_answered_is_said(world: dict[str, VlmTables]) -> None:
    tables = world["internvl"]
    base = load_vlm(tables.base).model.requires_grad_(False)

    def model(**settings: Any) -> Any:
        return trial_model(base, config(tables, **settings), 0, "trials.model", {})

    with pytest.raises(
        BadInput,
        match=r"trials.model.projector: no parameter of InternVL.* its parts are "
        r"model.vision_tower, model.multi_modal_projector, model.language_model, lm_head",
    ):
        model(train="projector", projector="bridge")
    assert model(train="projector", projector=r"linear_2\.").parameters()
    lora = {"targets": ["up_proj", "query"]}
    with pytest.raises(BadInput, match=r"lora.targets: .* no linear layers query \(there are down"):
        model(lora=lora)
    with pytest.raises(ValidationError, match="is no pattern"):
        config(tables, projector="(")
    with pytest.raises(BadInput, match=r"'0' has \d+ tokens, and 4 may be answered"):
        answerer(tables, 2, max_tokens=20).answer(tables.asked()[:1])


def test_tables_are_looked_at_first(world: dict[str, VlmTables]) -> None:
    tables = world["qwen2_vl"]
    assert Vlm(config(tables)).prepare(tables.data()).value == tables.data()
    short = config(tables, {"train": "lora", "max_tokens": 16})
    with pytest.raises(BadInput, match="20 of the first 20 samples have nothing to learn"):
        Vlm(short).prepare(tables.data(fixed={"finetune": tables.pairs.uri}))


def test_the_family_is_known_and_says_what_decides_its_results(
    world: dict[str, VlmTables],
) -> None:
    assert FAMILIES.get("vlm") is Vlm
    tables = world["internvl"]
    plain = Vlm(config(tables)).identity()
    assert Vlm(config(tables, answer_batch=3, micro_batch=2)).identity() == plain
    others = [
        config(tables, train="full"),
        config(tables, caption_prompt="What is this?"),
        config(tables, projector="x"),
        config(tables, max_tokens=100),
        config(tables, {"train": "lora"}),
        config(world["qwen2_vl"]),
    ]
    found = [json.dumps(Vlm(one).identity(), sort_keys=True) for one in (config(tables), *others)]
    assert len(set(found)) == len(found)
    assert str(tables.base) not in found[0]
    family = Vlm(config(tables, {"train": "lora"}))
    assert [(stage.name, stage.judged) for stage in family.stages(5)] == [
        ("train", True),
        ("finetune", True),
    ]
    assert family.flops(5) is None
    assert set(family.numerics(0)) == {
        "device",
        "torch",
        "torchvision",
        "transformers",
        "precision",
        "peft",
    }
    assert "peft" not in Vlm(config(tables, train="projector")).numerics(0)
    assert not family.lost()
    lost = config(tables, base={"path": str(tables.base / "nowhere")})
    assert Vlm(lost).lost() == [f"base.path: there is no folder {str(tables.base / 'nowhere')!r}"]
