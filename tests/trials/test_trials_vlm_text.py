"""What a processor makes of a conversation, and which of it is learnt, whatever the processor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vlm_world import IDEFICS, KINDS, picture, talk, write_vlm

from djsandbox_ray.dataset.media import IMAGE_TOKEN, VIDEO_TOKEN, Turn
from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.conversations import NOT_LEARNT, Told, asked, described
from djsandbox_ray.trials.vlm.base import load_vlm, read_processor
from djsandbox_ray.trials.vlm.joined import check_joining, join
from djsandbox_ray.trials.vlm.objective import read_told
from djsandbox_ray.trials.vlm.text import Processed, Script

MANY = 10_000


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    return {kind: make()[1] for kind, make in KINDS.items()}


def runs(sample: Processed) -> list[list[int]]:
    """Return the runs of tokens that are learnt, in order."""
    edges = np.flatnonzero(np.diff(np.r_[False, sample.labels != NOT_LEARNT, False]))
    return [sample.labels[start:stop].tolist() for start, stop in edges.reshape(-1, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_learnt_to_its_end_and_nothing_else(
    processors: dict[str, Any], kind: str
) -> None:
    script = Script(processors[kind], MANY)
    turns, files = talk(2)
    sample = script.sample(turns, files)
    assert [script.decode(run) for run in runs(sample)] == ["red", "yes no two lines"]
    assert all(run[-1] in script.ends and not set(run[:-1]) & script.ends for run in runs(sample))
    assert np.all((sample.labels == NOT_LEARNT) | (sample.labels == sample.ids))
    caption = "a red circle on a white background"
    pair = script.sample(described(caption), [picture(0)])
    assert [script.decode(run) for run in runs(pair)] == [caption]
    prompt = script.prompt(asked(1, "Describe the image."), [picture(0)])
    assert pair.ids[: len(prompt.ids)].tolist() == prompt.ids.tolist()
    assert pair.targets == len(runs(pair)[0])
    first = int(np.flatnonzero(pair.labels != NOT_LEARNT)[0])
    assert first == len(prompt.ids)
    assert prompt.targets == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_too_long_is_cut_but_in_no_image(processors: dict[str, Any], kind: str) -> None:
    processor = processors[kind]
    turns, files = talk(1)
    whole = Script(processor, MANY).sample(turns, files)
    first, second = (
        int(place) + 1 for place in np.flatnonzero(np.diff(whole.labels != NOT_LEARNT))[::2]
    )

    def cut(length: int) -> tuple[Processed, int]:
        sample = Script(processor, length).sample(turns, files)
        return sample, int((sample.ids == processor.image_token_id).sum())

    every = int((whole.ids == processor.image_token_id).sum())
    nothing, images = cut(first)
    assert (nothing.targets, images, nothing.media) == (0, 0, {})
    alone = Script(processor, MANY).sample(turns[:2], files[:1])
    for length, targets, images in (
        (first + 1, 1, None),
        (second, len(runs(whole)[0]), None),
        (second + 1, len(runs(whole)[0]) + 1, every),
        (len(whole.ids) - 1, whole.targets, every),
    ):
        sample, found = cut(length)
        assert sample.ids.tolist() == whole.ids[: len(sample.ids)].tolist()
        assert len(sample.ids) <= length
        assert sample.targets == targets
        assert all(values.shape[1] == len(sample.ids) for values in sample.marks.values())
        of_one = int((alone.ids == processor.image_token_id).sum())
        assert found == (of_one if images is None else images)
        media = (alone if images is None else whole).media
        assert all(torch.equal(values, sample.media[name]) for name, values in media.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_caption_is_learnt_as_far_as_it_is_read(
    processors: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, pair = Script(processors[kind], 400), described("a red circle " * 4000)
    ours = script.sample(pair, [picture(0)])
    monkeypatch.setattr("djsandbox_ray.trials.vlm.text.within", lambda text, tokens: text)
    whole = script.sample(pair, [picture(0)])
    assert ours.targets
    assert ours.ids.tolist() == whole.ids.tolist()
    assert ours.labels.tolist() == whole.labels.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_put_together_as_the_processor_does(
    processors: dict[str, Any], kind: str
) -> None:
    script = Script(processors[kind], MANY)
    check_joining(script, [talk(1), talk(2), talk(0)], 0)
    plain = (Turn("user", "What?"), Turn("assistant", "yes"))
    samples = [script.sample(*talk(1)), script.sample(plain, [])]
    both, alone = join(samples, [1, 0], 0), join(samples, [0], 0)
    assert both.ids[1].tolist() == alone.ids[0].tolist()
    assert all(torch.equal(both.media[name], values) for name, values in alone.media.items())
    left = join(samples, [0, 1], 0, side="left")
    assert left.mask[1, -len(samples[1].ids) :].all()
    assert left.ids[1, -len(samples[1].ids) :].tolist() == samples[1].ids.tolist()
    assert left.mask[1].sum() == len(samples[1].ids)
    learnt = both.ids.reshape(-1)[both.places + 1]
    assert learnt.tolist() == both.targets.tolist()


def test_a_processor_that_puts_samples_together_otherwise_is_refused(
    processors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(processors["qwen2_vl"], MANY)
    together = Script.together

    def otherwise(self: Script, samples: Any) -> dict[str, Any]:
        found = together(self, samples)
        return {**found, "pixel_values": found["pixel_values"].flip(0)}

    monkeypatch.setattr(Script, "together", otherwise)
    with pytest.raises(BadInput, match="another pixel_values of 2 samples at a time"):
        check_joining(script, [talk(1), talk(2)], 0)
    marked = script.sample(*talk(1))
    bare = replace(script.sample(*talk(1)), marks={})
    with pytest.raises(BadInput, match="gives mm_token_type_ids of samples with images alone"):
        join([marked, bare], [0, 1], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_users_write_is_no_token(processors: dict[str, Any], kind: str) -> None:
    processor = processors[kind]
    script = Script(processor, MANY)
    end = processor.tokenizer.eos_token
    said = f"a {end} {processor.image_token} b"
    sample = script.sample(described(said), [picture(1)])
    plain = script.sample(described("a b"), [picture(1)])
    (run,) = runs(sample)
    assert script.decode(run) == said.replace("<", "< ")
    for token in {processor.image_token_id, *script.ends}:
        assert (sample.ids == token).sum() == (plain.ids == token).sum()


def test_a_template_that_cannot_be_followed_is_refused(processors: dict[str, Any]) -> None:
    processor = processors["idefics3"]

    def script(template: str) -> Script:
        processor.chat_template = template
        return Script(processor, MANY)

    try:
        with pytest.raises(BadInput, match=r"tokens up to turn 1 are not those .* type: command"):
            script(IDEFICS.replace("'Assistant:'", "'Model says:'"))
        with pytest.raises(BadInput, match="no token ends an answer"):
            script(IDEFICS.replace("<end_of_utterance>", ""))
        with pytest.raises(BadInput, match="chat template: nothing works"):
            script("{{ raise_exception('nothing works') }}")
        last = "{% if loop.last %}<end_of_utterance>{% endif %}"
        with pytest.raises(BadInput, match="tokens up to turn 1 are not"):
            script(IDEFICS.replace("<end_of_utterance>", last)).sample(*talk(1))
    finally:
        processor.chat_template = IDEFICS
    made = Script(processor, MANY)
    with pytest.raises(BadInput, match="has a video"):
        made.sample((Turn("user", VIDEO_TOKEN), Turn("assistant", "a")), [])
    with pytest.raises(BadInput, match="has an image in an answer"):
        made.sample((Turn("user", "a"), Turn("assistant", IMAGE_TOKEN)), [picture(0)])
    with pytest.raises(BadInput, match="Idefics3Processor cannot read a sample: "):
        made.sample(described("a"), [])
    with pytest.raises(BadInput, match=r"^table, row 7: Idefics3Processor cannot read a sample: "):
        read_told(made, Told(described("a"), (), 7, "table, row 7"))


def test_a_folder_without_such_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no processor can be loaded from it"):
        load_vlm(tmp_path)
    folder = write_vlm(tmp_path / "model", "internvl")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="InternVLProcessor has no chat template"):
        read_processor(folder)
    folder = write_vlm(tmp_path / "other", "internvl")
    settings = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "own.Own"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps({**settings, **code}))
    with pytest.raises(BadInput, match="no image-to-text model can be loaded from it"):
        load_vlm(folder)
