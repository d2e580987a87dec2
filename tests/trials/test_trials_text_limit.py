"""Long texts are cut far behind what a model reads, and others stay as they are."""

from __future__ import annotations

import pytest
from llava_tokenizers import TOKENIZERS

from djsandbox_ray.dataset.media import Turn
from djsandbox_ray.trials.conversations import described
from djsandbox_ray.trials.llava.text import Transcript
from djsandbox_ray.trials.text_limit import within


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("  a caption\n", "  a caption\n"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 40),
        (f"a {'x' * 99} b", f"a {'x' * 40} b"),
        ("a b " * 25, "a b " * 25),
        ("a b " * 1_000_000, ("a b " * 50)),
        ("x" * 1_000_000, "x" * 40),
        (f"{' ' * 60}ab", f"{' ' * 60}ab"),
    ],
)
def test_so_many_characters_are_read_for_each_token(text: str, kept: str) -> None:
    assert within(text, 2) == kept


def test_blanks_before_a_long_text_may_be_left_out() -> None:
    assert within(f"{' ' * 500}ab", 2, lead=False) == "ab"
    assert within(" ab", 2, lead=False) == " ab"


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_is_learnt_of_a_long_caption_is_what_it_was(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = TOKENIZERS[kind]()
    image = known.convert_tokens_to_ids("<image>")
    script = Transcript(known, "vicuna_v1", image, 4, 64)
    samples = [
        described(caption)
        for caption in ("a red circle", "red circle " * 1000, "circle" * 2000, "red\n" * 5000)
    ]
    long = (Turn("user", "yes no " * 3000), Turn("assistant", "red"))
    ours = [script.sample(turns) for turns in (*samples, long)]
    monkeypatch.setattr("djsandbox_ray.trials.llava.text.within", lambda text, tokens: text)
    for found, turns in zip(ours, (*samples, long), strict=True):
        whole = script.sample(turns)
        assert found.ids.tolist() == whole.ids.tolist()
        assert found.labels.tolist() == whole.labels.tolist()
