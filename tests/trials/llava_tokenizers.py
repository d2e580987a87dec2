"""Tokenizers of the kinds that language models have, small, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "a red circle on a white background",
    "What color is the circle? Answer the question using a single word or phrase.",
    "USER: ASSISTANT: user model system Describe the image. there is a small blue star, no cross!",
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "green yellow square ring \n yes no two lines",
]
CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
TURNS = ["<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"]


def word_level() -> Any:
    """Every word is a token, and the end of a line is one."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Punctuation(),
        ]
    )
    return wrapped(tokenizer, trainers.WordLevelTrainer(special_tokens=SPECIAL + TURNS))


def byte_level() -> Any:
    """Byte pairs, as GPT-2 and its followers have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL + TURNS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return wrapped(tokenizer, trainer)


def metaspace() -> Any:
    """In the manner of SentencePiece: blanks are letters, and every text begins with one."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return wrapped(tokenizer, trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL + TURNS))


def normalised() -> Any:
    """As Llama's of old: the first blank comes by a normalizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrapped(tokenizer, trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL + TURNS))


def wrapped(tokenizer: Tokenizer, trainer: Any) -> Any:
    """Train a tokenizer and give it to transformers, with a chat template."""
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[begin]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=["<image>", *TURNS],
        chat_template=CHAT,
    )


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "word_level": word_level,
    "byte_level": byte_level,
    "metaspace": metaspace,
    "normalised": normalised,
}
