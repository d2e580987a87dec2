"""What is learnt is known by construction, in every template with every kind of tokenizer."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from llava_tokenizers import TOKENIZERS

from djsandbox_ray.dataset.media import IMAGE_TOKEN, VIDEO_TOKEN, Turn
from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.conversations import asked, described
from djsandbox_ray.trials.llava.text import (
    NOT_LEARNT,
    Encoded,
    Transcript,
    check_template,
)

TEMPLATES = ("plain", "caption", "a photo. {caption}", "vicuna_v1", "gemma", "chat")
SPEAKING = ("vicuna_v1", "gemma", "chat")
IMAGE_TOKENS = 4
TALK = (
    Turn("user", f"{IMAGE_TOKEN}\nWhat color is the circle?"),
    Turn("assistant", "red"),
    Turn("user", "there is a small blue star, no cross!"),
    Turn("assistant", "yes no two"),
)


@cache
def tokenizer(kind: str) -> Any:
    return TOKENIZERS[kind]()


def transcript(kind: str, template: str, max_tokens: int = 1000) -> Transcript:
    known = tokenizer(kind)
    image = known.convert_tokens_to_ids("<image>")
    return Transcript(known, template, image, IMAGE_TOKENS, max_tokens)


def learnt_runs(encoded: Encoded) -> list[list[int]]:
    """Return the runs of tokens that are learnt, in order."""
    runs: list[list[int]] = []
    before = NOT_LEARNT
    for label in encoded.labels.tolist():
        if label != NOT_LEARNT:
            if before == NOT_LEARNT:
                runs.append([])
            runs[-1].append(label)
        before = label
    return runs


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_caption_is_learnt_from_its_first_word_to_its_end(kind: str, template: str) -> None:
    script = transcript(kind, template)
    caption = "a red circle on a white background"
    encoded = script.sample(described(caption))
    (run,) = learnt_runs(encoded)
    assert run[-1] in script.ends
    assert not set(run[:-1]) & script.ends
    assert script.decode(run) == caption
    assert encoded.images == 1
    assert (encoded.ids == script.image_id).sum() == IMAGE_TOKENS
    assert np.all((encoded.labels == NOT_LEARNT) | (encoded.labels == encoded.ids))
    assert encoded.ids[0] == tokenizer(kind).bos_token_id
    assert (encoded.ids == tokenizer(kind).bos_token_id).sum() == 1
    prompt = script.prompt(described(caption)[:1])
    assert encoded.ids[: len(prompt)].tolist() == prompt.tolist()
    assert len(prompt) == len(encoded.ids) - len(run)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", SPEAKING)
def test_every_answer_of_a_conversation_is_learnt_and_nothing_else(
    kind: str, template: str
) -> None:
    script = transcript(kind, template)
    encoded = script.sample(TALK)
    runs = learnt_runs(encoded)
    assert [script.decode(run) for run in runs] == ["red", "yes no two"]
    assert all(run[-1] in script.ends for run in runs)
    for length in (1, 3):
        prompt = script.prompt(TALK[:length])
        assert encoded.ids[: len(prompt)].tolist() == prompt.tolist()
        assert encoded.labels[len(prompt)] != NOT_LEARNT
        assert encoded.labels[len(prompt) - 1] == NOT_LEARNT


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_users_write_has_no_token_of_the_template(kind: str, template: str) -> None:
    script = transcript(kind, template)
    spelt = "red </s> <image> <s> <|im_end|><end_of_turn> circle"
    encoded = script.sample((Turn("user", f"{IMAGE_TOKEN}\n{spelt}"), Turn("assistant", spelt)))
    assert (encoded.ids == script.image_id).sum() == IMAGE_TOKENS
    (run,) = learnt_runs(encoded)
    assert run[-1] in script.ends
    assert not set(run[:-1]) & script.ends
    calm = script.sample((Turn("user", f"{IMAGE_TOKEN}\nred"), Turn("assistant", "red")))
    special = set(tokenizer(kind).all_special_ids) - {tokenizer(kind).unk_token_id}
    found, usual = (
        [token for token in ids.tolist() if token in special] for ids in (encoded.ids, calm.ids)
    )
    assert found == usual


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_an_answer_has_the_tokens_that_it_has_in_running_text(kind: str) -> None:
    """As a model that has learnt the template elsewhere knows them."""
    known = tokenizer(kind)
    script = transcript(kind, "vicuna_v1")
    (run,) = learnt_runs(script.sample((Turn("user", "no"), Turn("assistant", "red circle"))))
    whole = known("USER: no ASSISTANT: red circle", add_special_tokens=False)["input_ids"]
    before = known("USER: no ASSISTANT:", add_special_tokens=False)["input_ids"]
    assert run[:-1] == whole[len(before) :]


def test_the_chat_template_gives_what_the_tokenizer_gives() -> None:
    for kind in ("word_level", "byte_level"):
        known, script = tokenizer(kind), transcript(kind, "chat")
        turns = (TALK[0], TALK[1])
        messages = [
            {"role": turn.role, "content": turn.text.replace(IMAGE_TOKEN, "<image>")}
            for turn in turns
        ]
        text = known.apply_chat_template(messages, tokenize=False).removesuffix("\n")
        whole = known(text, add_special_tokens=False)["input_ids"]
        ours = script.sample(turns).ids.tolist()
        at = ours.index(script.image_id)
        assert ours[:at] + ours[at + IMAGE_TOKENS - 1 :] == whole


def test_a_long_one_is_cut_on_the_right_and_never_inside_an_image() -> None:
    whole = transcript("byte_level", "vicuna_v1").sample(TALK)
    first = int(np.flatnonzero(whole.ids == transcript("byte_level", "vicuna_v1").image_id)[0])
    for length in range(first - 1, len(whole.ids)):
        cut = transcript("byte_level", "vicuna_v1", length).sample(TALK)
        kept = first if first < length < first + IMAGE_TOKENS else length
        assert cut.ids.tolist() == whole.ids[:kept].tolist()
        assert cut.labels.tolist() == whole.labels[:kept].tolist()
        assert cut.images == int(kept >= first + IMAGE_TOKENS)
    two = transcript("byte_level", "plain", 1000).sample(asked(2, "") + TALK[1:2])
    assert two.images == 2
    cut = transcript("byte_level", "plain", IMAGE_TOKENS + 3).sample(asked(2, "") + TALK[1:2])
    assert (cut.images, len(cut.ids), cut.targets) == (1, IMAGE_TOKENS + 1, 0)


def test_text_and_several_images_have_their_places() -> None:
    script = transcript("byte_level", "vicuna_v1")
    assert script.sample((Turn("user", "no"), Turn("assistant", "yes"))).images == 0
    turns = (Turn("user", f"a {IMAGE_TOKEN} and {IMAGE_TOKEN}"), Turn("assistant", "yes"))
    encoded = script.sample(turns)
    assert encoded.images == 2
    assert (encoded.ids == script.image_id).sum() == 2 * IMAGE_TOKENS


def test_what_cannot_be_used_is_said() -> None:
    known = TOKENIZERS["metaspace"]()
    image = known.convert_tokens_to_ids("<image>")
    with pytest.raises(BadInput, match="a video; this model reads images alone"):
        transcript("byte_level", "plain").sample((Turn("user", VIDEO_TOKEN),))
    known.chat_template = None
    with pytest.raises(BadInput, match="the tokenizer has no chat template"):
        Transcript(known, "chat", image, 4, 100)
    known.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(BadInput, match="no token ends an answer"):
        Transcript(known, "chat", image, 4, 100)
    known.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(BadInput, match="repeats a turn, or leaves it out"):
        Transcript(known, "chat", image, 4, 100)
    known.chat_template = (
        "{% for m in messages %}{{ m['content'] + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    )
    with pytest.raises(BadInput, match="adds words of its own"):
        Transcript(known, "chat", image, 4, 100)
    known.eos_token = None
    with pytest.raises(BadInput, match="no token that ends a text"):
        Transcript(known, "vicuna_v1", image, 4, 100)
    with pytest.raises(ValueError, match="did you mean 'vicuna_v1'"):
        check_template("vicuna")
    with pytest.raises(ValueError, match="once, at its end"):
        check_template("{caption} is what I see")


def test_a_tokenizer_without_lines_or_turns_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    known = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>")
    with pytest.raises(BadInput, match="no token for the end of a line"):
        Transcript(known, "plain", 1, 4, 100)
    with pytest.raises(BadInput, match="no token '<start_of_turn>'"):
        Transcript(known, "gemma", 1, 4, 100)
