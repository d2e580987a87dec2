"""A projector is trained on the pool, the whole on fixed data; questions are answered greedily."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_world import (
    BUDGET,
    FIXED,
    PIXELS,
    Tables,
    asked,
    config,
    task,
    write_fine,
    write_shapes,
    write_talk,
)
from recorded import check

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Turn
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.caption_nll import CaptionNll, CaptionNllConfig
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.vqa.textvqa import TextVqaConfig
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.conversations import NOT_LEARNT, Conversations, described, refuse_without
from djsandbox_ray.trials.family import TrialData
from djsandbox_ray.trials.llava.answerer import LlavaAnswerer
from djsandbox_ray.trials.llava.base_folder import Words, load_base
from djsandbox_ray.trials.llava.config import LlavaModelConfig
from djsandbox_ray.trials.llava.family import VERSION, Llava
from djsandbox_ray.trials.llava.modules import trial_model
from djsandbox_ray.trials.llava.objective import NextTokens
from djsandbox_ray.trials.llava.pixels import Squares
from djsandbox_ray.trials.llava.text import Transcript
from djsandbox_ray.trials.loop import VERSION as LOOP_VERSION


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables.write(tmp_path_factory.mktemp("llava"))


def answerer(tables: Tables, batch: int, **other: Any) -> LlavaAnswerer:
    base = load_base(tables.base)
    words = base.words
    model = trial_model(base.llava, "mlp2x_gelu", 2)
    settings: dict[str, Any] = {
        "talk": _transcript(words, "chat"),
        "captions": _transcript(words, "plain"),
        "looks": lambda *_: Squares(PIXELS, "crop"),
        "pixels": PIXELS,
        "sets": {"talk": tables.talk.uri, "trusted": tables.trusted.uri},
        "device": "cpu",
        "batch": batch,
    }
    return LlavaAnswerer(model, words.tokenizer, **{**settings, **other})


def _transcript(words: Words, template: str, max_tokens: int = 200) -> Transcript:
    return Transcript(words.tokenizer, template, words.image_id, words.image_tokens, max_tokens)


def test_an_answer_hangs_on_nothing_else_that_is_asked(tables: Tables) -> None:
    questions = asked(tables)
    alone = answerer(tables, 1).answer(questions)
    assert [answer.key for answer in alone] == [question.key for question in questions]
    assert len({answer.text for answer in alone}) > 3
    assert answerer(tables, 7).answer(questions) == alone
    assert answerer(tables, 64).answer(questions[::-1]) == alone[::-1]
    one = answerer(tables, 1).answer(questions[5:6])
    assert one == alone[5:6]


def test_an_answer_is_the_likeliest_token_each_time(tables: Tables) -> None:
    """By transformers' own model, which is given the image and all tokens so far, each time."""
    model = answerer(tables, 8)
    question = asked(tables)[4]
    (answer,) = model.answer([question])
    words = load_base(tables.base).words
    prompt = _transcript(words, "chat").prompt((Turn("user", f"{IMAGE_TOKEN}\n{question.text}"),))
    image = tables.talk.media([question.row], "image")[0][0].data
    pixels = PIXELS.normalised(torch.from_numpy(PIXELS.square(image, "crop")[None].copy()))
    ids = prompt.tolist()
    while len(ids) < len(prompt) + question.max_new_tokens:
        with torch.no_grad():
            whole = model._model.llava(input_ids=torch.tensor([ids]), pixel_values=pixels)
        ids.append(int(whole.logits[0, -1].argmax()))
        if ids[-1] in _transcript(words, "chat").ends:
            break
    said = [token for token in ids[len(prompt) :] if token not in _transcript(words, "chat").ends]
    assert answer.text == words.tokenizer.decode(said, skip_special_tokens=True).strip()
    assert answer.tokens == len(said)
    assert answer.cut == (ids[-1] not in _transcript(words, "chat").ends)


def test_what_cannot_be_answered_is_said(tables: Tables) -> None:
    words = load_base(tables.base).words
    model = answerer(tables, 8, talk=_transcript(words, "chat", max_tokens=12))
    with pytest.raises(BadInput, match=r"'0' has \d+ tokens, and 4 may be answered"):
        model.answer(asked(tables)[:1])
    with pytest.raises(SandboxError, match="not given the evaluation set other"):
        answerer(tables, 8).answer([replace(asked(tables)[0], data="other")])
    words.tokenizer.padding_side = "right"
    settings = {"talk": _transcript(words, "chat"), "captions": _transcript(words, "plain")}
    with pytest.raises(SandboxError, match="pads on the right"):
        LlavaAnswerer(
            None, words.tokenizer, **settings, looks=None, pixels=PIXELS, sets={}, device="cpu"
        )


def test_the_likelihood_of_captions_is_the_mean_loss_of_transformers(tables: Tables) -> None:
    model = answerer(tables, 5)
    data = EvaluationSet.read("trusted", tables.trusted.uri)
    found = model.nll(data, [3, 0, 7])
    words = load_base(tables.base).words
    for place, row in enumerate([3, 0, 7]):
        encoded = _transcript(words, "plain").sample(described(data.texts[row]))
        image = data.take([row], ["image"])["image"].to_pylist()[0]
        pixels = PIXELS.normalised(torch.from_numpy(PIXELS.square(image, "crop")[None].copy()))
        with torch.no_grad():
            loss = model._model.llava(
                input_ids=torch.from_numpy(encoded.ids[None].astype(np.int64)),
                labels=torch.from_numpy(encoded.labels[None].astype(np.int64)),
                pixel_values=pixels,
            ).loss
        assert found.tokens[place] == encoded.targets
        assert found.nll[place] / encoded.targets == pytest.approx(float(loss), rel=1e-5)
    metrics = CaptionNll(CaptionNllConfig(type="caption_nll")).evaluate(model, data)
    every = model.nll(data, range(data.rows))
    assert metrics["caption_nll/token"] == pytest.approx(every.nll.sum() / every.tokens.sum())
    size = sum(len(text.encode()) for text in data.texts)
    assert metrics["caption_nll/byte"] == pytest.approx(every.nll.sum() / size)
    some = CaptionNll(CaptionNllConfig(type="caption_nll", limit=4)).evaluate(model, data)
    assert some != metrics
    with pytest.raises(BadInput, match="has no captions"):
        CaptionNll(CaptionNllConfig(type="caption_nll")).check(EvaluationSet("x", "y", 3))


def test_the_objective_is_a_sum_however_a_batch_is_cut(tables: Tables) -> None:
    base = load_base(tables.base)
    told = Conversations(tables.talk.uri, np.arange(20))
    script = _transcript(base.words, "chat")
    model = trial_model(base.llava, "mlp2x_gelu", 2)
    objective = NextTokens(model, told, script, Squares(PIXELS, "crop"), "cpu")
    positions = np.array([4, 9, 0, 17, 3])
    batch = objective.collate(positions, np.arange(5))
    lengths = [len(one.ids) for one in batch.encoded]
    assert len(set(lengths)) > 1
    assert objective.weight(batch) == sum((one.labels != NOT_LEARNT).sum() for one in batch.encoded)

    def gradient(size: int) -> tuple[float, Any]:
        model.zero_grad()
        total = 0.0
        for micro in objective.split(batch, size):
            loss, _ = objective.loss(model, micro)
            loss.backward()
            total += float(loss.detach())
        weight = model.llava.model.multi_modal_projector.linear_1.weight
        return total, weight.grad.clone()

    (whole, grad), parts = gradient(5), [gradient(size) for size in (1, 2)]
    for total, part in parts:
        assert total == pytest.approx(whole, rel=1e-5)
        assert torch.allclose(part, grad, atol=1e-5 * float(grad.abs().max()))


def trained(
    tables: Tables,
    folder: Path,
    settings: LlavaModelConfig,
    data: TrialData | None = None,
    **other: Any,
) -> tuple[list[RungReport], dict[str, Any]]:
    """Train; return the reports, and the weights of projector and language model at the end."""
    kept: dict[str, Any] = {}

    def evaluate(model: LlavaAnswerer, samples: int) -> dict[str, float]:
        kept.update({name: value.clone() for name, value in model._model.state_dict().items()})
        answers = model.answer(asked(tables)[:6])
        nll = model.nll(EvaluationSet.read("trusted", tables.trusted.uri), [0, 1])
        return {"tokens": float(np.mean([one.tokens for one in answers])), "nll": nll.nll.sum()}

    family = Llava(settings).resolved(0)
    work = task(tables, folder, evaluate, **other)
    return list(family.train(work, data or tables.data())), kept


@pytest.mark.parametrize("train", ["full", "lora"])
def test_both_stages_train_what_they_should(tables: Tables, tmp_path: Path, train: str) -> None:
    lora = {"rank": 4, "alpha": 8}
    settings = config(tables, {"train": train, "lora": lora})
    (report,), weights = trained(tables, tmp_path, settings)
    assert report.samples == BUDGET + FIXED
    assert set(report.terms) == {"projector/loss", "gradient_norm"}
    base = load_base(tables.base).llava.state_dict()
    changed = {
        name
        for name, value in base.items()
        if f"llava.{name}" in weights and not torch.equal(value, weights[f"llava.{name}"])
    }
    assert not any("vision_tower" in name for name in changed)
    assert any("multi_modal_projector" in name for name in changed)
    assert any("language_model" in name for name in changed) == (train == "full")
    file = next((tmp_path / "trials" / "trial").rglob("weights.pt"))
    saved = torch.load(file, weights_only=True)["model"]
    assert all("vision_tower" not in name for name in saved)
    if train == "lora":
        assert all("lora_" in name or "projector" in name for name in saved)
        moved = [value for name, value in saved.items() if "lora_B" in name]
        assert all(float(value.abs().max()) > 0 for value in moved)


def test_its_version_and_that_of_the_loop_stand_for_the_numbers(
    tables: Tables, tmp_path: Path
) -> None:
    (report,), weights = trained(tables, tmp_path, config(tables))
    found = {
        "losses": [report.loss, report.terms["projector/loss"]],
        "nll": report.metrics["nll"],
        "weights": [
            float(value.norm())
            for name, value in weights.items()
            if "multi_modal_projector" in name
        ],
    }
    places = "trials/llava/family.py or trials/loop.py"
    check("llava", f"{VERSION}.{LOOP_VERSION}", places, found)


def test_mining_is_trained_and_answers(tables: Tables, tmp_path: Path) -> None:
    fine = str(write_fine(tmp_path / "fine"))
    settings = config(tables, projector={"type": "mining", "tower": fine, "size": 64})
    (report,), weights = trained(tables, tmp_path, settings)
    assert report.metrics["tokens"] > 0
    assert any("multi_modal_projector.query" in name for name in weights)
    family = Llava(settings)
    assert fine not in json.dumps(family.identity())
    assert family.flops_per_sample() > Llava(config(tables)).flops_per_sample()


def test_micro_batches_do_not_change_the_result(tables: Tables, tmp_path: Path) -> None:
    _, whole = trained(tables, tmp_path / "whole", config(tables))
    settings = config(tables, {"micro_batch": 2}, micro_batch=3)
    assert Llava(settings).identity() == Llava(config(tables)).identity()
    _, parts = trained(tables, tmp_path / "parts", settings)
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=2e-5), name


def test_the_second_stage_is_the_same_for_all_pools(tables: Tables, tmp_path: Path) -> None:
    read: dict[str, list[int]] = {}

    def note(key: str) -> Any:
        rows = read.setdefault(key, [])
        take = Conversations.take

        def taking(self: Conversations, positions: Any) -> Any:
            if self._table.uri == tables.talk.uri:
                rows.extend(self._rows[positions].tolist())
            return take(self, positions)

        return taking

    for key, rows in (("one", np.arange(20)), ("other", np.arange(15, 35))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Conversations, "take", note(key))
            trained(tables, tmp_path / key, config(tables), rows=rows, captions=rows)
    assert read["one"] == read["other"]
    assert len(read["one"]) == FIXED


def test_a_trial_that_was_cut_off_goes_on_bit_for_bit(tables: Tables, tmp_path: Path) -> None:
    rungs = (BUDGET + FIXED // 2, BUDGET + FIXED)
    _, whole = trained(tables, tmp_path / "whole", config(tables), rungs=rungs)
    family = Llava(config(tables)).resolved(0)
    cut = family.train(task(tables, tmp_path / "cut", lambda *_: {}, rungs=rungs), tables.data())
    assert next(iter(cut)).samples == rungs[0]
    cut.close()
    reports, resumed = trained(tables, tmp_path / "cut", config(tables), rungs=rungs)
    assert [report.samples for report in reports] == [rungs[1]]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_shuffled_captions_are_read_with_other_images(tables: Tables) -> None:
    rows = np.arange(10, dtype=np.int64)
    told = Conversations(tables.pairs.uri, rows, rows[::-1].copy()).take(np.array([2]))
    captions, images = (tables.pairs.column(name).to_pylist() for name in ("text", "image"))
    assert told[0].turns == described(captions[7])
    assert told[0].images == (images[2],)
    assert told[0].place == f"{tables.pairs.uri}, row 2 with the text of row 7"


def test_data_with_nothing_to_learn_are_refused(tables: Tables, tmp_path: Path) -> None:
    settings = config(tables, max_tokens=16)
    short = settings.model_copy(
        update={"finetune": settings.finetune.model_copy(update={"max_tokens": 16})}
    )
    refuse_without(10, 1000, 16)
    refuse_without(1, 5, 16)
    with pytest.raises(BadInput, match=r"11 of the first 1000 samples have nothing to learn"):
        refuse_without(11, 1000, 16)
    many = write_talk(tmp_path / "many", 40)
    with pytest.raises(BadInput, match="have nothing to learn: all that is learnt of them lies"):
        Llava(short).prepare(tables.data(fixed={"finetune": many.uri}))
    assert Llava(config(tables)).prepare(tables.data()).value == tables.data()


def test_what_decides_a_result_is_in_its_identity(tables: Tables) -> None:
    plain = Llava(config(tables)).identity()
    assert Llava(config(tables, answer_batch=3, prefetch=5)).identity() == plain
    others = [
        config(tables, learning_rate=2e-3),
        config(tables, projector="linear"),
        config(tables, {"train": "lora"}),
        config(tables, {"samples": 8}),
        config(tables, template="caption"),
    ]
    found = [json.dumps(Llava(one).identity(), sort_keys=True) for one in (config(tables), *others)]
    assert len(set(found)) == len(found)
    assert str(tables.base) not in found[0]
    assert "peft" in Llava(config(tables, {"train": "lora"})).numerics(0)
    assert "peft" not in Llava(config(tables, {"train": "full"})).numerics(0)


def test_operations_of_an_evaluation_are_estimated(tables: Tables, tmp_path: Path) -> None:
    family = Llava(config(tables, {"text_tokens": 20})).resolved(0)
    weighed = EvaluationSet.read("trusted", tables.trusted.uri)
    world = {"type": "shapes_questions", "samples": 5, "content": "pairs"}
    asked = EvaluationSet.read("asked", write_shapes(tmp_path, world).uri)
    told = CaptionNllConfig(type="caption_nll", limit=4)
    words = TextVqaConfig(type="textvqa", dataset=world, max_new_tokens=3)
    captions, answers = family._parts(64), family._parts(20)
    assert family.evaluation_flops(Suite([told], [weighed])) == 4 * captions.weighing
    count = len(Suite([words], [asked]).asked())
    assert count >= 5
    assert family.evaluation_flops(Suite([words, told], [asked, weighed])) == pytest.approx(
        count * answers.answering(3) + 4 * captions.weighing
    )
    others = RetrievalConfig(type="retrieval")
    assert family.evaluation_flops(Suite([told, others], [weighed, weighed])) is None


def test_operations_and_stages(tables: Tables) -> None:
    family = Llava(config(tables)).resolved(0)
    first, second = family.counted(100)
    assert (first.name, first.samples, first.judged) == ("projector", 100, False)
    assert (second.name, second.samples, second.judged) == ("finetune", FIXED, True)
    assert first.flops_per_sample
    assert second.flops_per_sample
    assert second.flops_per_sample > first.flops_per_sample
    assert family.flops(100) == pytest.approx(
        100 * first.flops_per_sample + FIXED * second.flops_per_sample
    )
    alone = LlavaModelConfig(type="llava", base={"path": str(tables.base)})
    assert [stage.judged for stage in Llava(alone).stages(10)] == [True]
    assert SampleTable(tables.talk.uri).is_wide
