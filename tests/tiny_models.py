"""A tokenizer and a CLIP, small enough for a test, as operators find them: in local folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def tokenizer(folder: Path, texts: Sequence[str]) -> Path:
    """Save a tokenizer that has learned from some texts, as a Hugging Face folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = ["<unk>", "<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=marks)
    learned.train_from_iterator(texts, trainer)
    learned.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=learned,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<unk>",
        model_max_length=16,
    )
    fast.save_pretrained(folder)
    return folder


def clip(folder: Path, tokenizer_folder: Path) -> Path:
    """Save an untrained CLIP that splits texts as a tokenizer does, as a Hugging Face folder."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
    )

    torch.manual_seed(0)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    config = CLIPConfig(
        text_config={
            **layers,
            "intermediate_size": 64,
            "vocab_size": 120,
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config={**layers, "intermediate_size": 64, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPProcessor(images, AutoTokenizer.from_pretrained(tokenizer_folder)).save_pretrained(folder)
    return folder


def clip_for(texts: Sequence[str], folder: Path) -> Path:
    """Save a tokenizer of some texts and an untrained CLIP in a folder; return that of the CLIP."""
    return clip(folder / "clip", tokenizer(folder / "tokenizer", texts))
