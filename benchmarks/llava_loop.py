"""Samples per second of both stages of a LLaVA beside transformers' own Trainer.

The peer is what LLaVA's code trains with: ``transformers.Trainer`` on a
``LlavaForConditionalGeneration`` with the same weights, that reads the same images and the same
tokens, whose loader has a process of its own. Ours is the training of a trial: the loop, its
objective, and the loader that reads the sample table. Both have the same batches in steps, AdamW,
the same precision and one thread of torch. Each measurement is a process, and they take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.conversations import NOT_LEARNT, Conversations
from djsandbox_ray.trials.llava.base_folder import joined, load_base, save
from djsandbox_ray.trials.llava.config import FinetuneConfig, TalkConfig
from djsandbox_ray.trials.llava.modules import open_language, trial_model
from djsandbox_ray.trials.llava.objective import NextTokens
from djsandbox_ray.trials.llava.pixels import Pixels, Squares
from djsandbox_ray.trials.llava.small import small_tokenizer
from djsandbox_ray.trials.llava.text import Transcript
from djsandbox_ray.trials.loop import AdditiveTraining

SIZES = {
    "tiny": {"side": 32, "patch": 8, "tower": (96, 3), "language": (96, 2)},
    "middle": {"side": 112, "patch": 14, "tower": (384, 6), "language": (512, 8)},
    "large": {"side": 336, "patch": 14, "tower": (1024, 24), "language": (2048, 22)},
}
"""Pixels of a side and of a patch; width and layers of tower and language model. The large one has
the tower of LLaVA and a language model of TinyLlama's size."""
STAGES = ("projector", "finetune")
WARM = 2
"""Steps that are not timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--role", nargs=2, metavar=("WHO", "STAGE"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        print(json.dumps(_measure(*given.role, given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.work = Path(folder)
        _write(given)
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(given.repeats):
            for stage in STAGES:
                for who in ("ours", "trainer"):
                    found.setdefault((who, stage), []).append(_process(who, stage, given))
    where = "GPU" if torch.cuda.is_available() else "CPU"
    print(
        f"{given.size} on {where}, batch {given.batch}, {given.steps} steps, "
        f"median of {given.repeats}"
    )
    print(f"{'stage':12}{'':22}{'samples/s':>10}{'ratio':>8}{'peak MB':>9}{'loss':>8}")
    for stage in STAGES:
        middle = {
            who: {
                name: statistics.median(one[name] for one in found[who, stage])
                for name in ("speed", "memory", "loss")
            }
            for who in ("trainer", "ours")
        }
        for who, label in (("trainer", "transformers.Trainer"), ("ours", "djsandbox_ray")):
            one = middle[who]
            ratio = one["speed"] / middle["trainer"]["speed"]
            print(
                f"{stage:12}{label:22}{one['speed']:10.2f}{ratio:8.2f}{one['memory']:9.0f}"
                f"{one['loss']:8.3f}"
            )


def _write(given: argparse.Namespace) -> None:
    """Write what both read: a base, and a table of samples for each stage."""
    size, rows = SIZES[given.size], given.batch * (given.steps + WARM)
    connect(cpus=1)
    settings = {"samples": rows, "image_size": size["side"]}
    sources = {"projector": {"type": "shapes", **settings}}
    sources["finetune"] = {"type": "shapes_questions", "questions": 3, **settings}
    storage = Storage(str(given.work))
    texts: list[str] = []
    for stage, settings in sources.items():
        kind = SOURCES.get(settings["type"])
        dataset = ingest(kind(kind.Config.model_validate(settings)), storage, max_rejected=0)
        (given.work / stage).write_text(storage.uri(dataset.table))
        told = Conversations(storage.uri(dataset.table), np.arange(rows))
        texts += [turn.text for turns in told.said(np.arange(rows)) for turn in turns]
    tokenizer = small_tokenizer(text.replace("<__dj__image>", "") for text in texts)
    (width, layers), (wide, deep) = size["tower"], size["language"]
    torch.manual_seed(0)
    tower = transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(2, width // 64),
            image_size=size["side"],
            patch_size=size["patch"],
        )
    )
    language = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32000,
            hidden_size=wide,
            intermediate_size=11 * wide // 4,
            num_hidden_layers=deep,
            num_attention_heads=max(2, wide // 64),
            num_key_value_heads=max(2, wide // 64),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    pixels = Pixels(size["side"], (0.5,) * 3, (0.5,) * 3)
    llava = joined(tower, language, tokenizer, pixels, -2)
    (given.work / "base").mkdir()
    save(llava, tokenizer, pixels, given.work / "base")


def _process(who: str, stage: str, given: argparse.Namespace) -> dict[str, float]:
    words = [f"--{name}={getattr(given, name)}" for name in ("size", "batch", "steps", "work")]
    command = [sys.executable, __file__, *words, "--role", who, stage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(who: str, stage: str, given: argparse.Namespace) -> dict[str, float]:
    """Train one stage; return samples per second, the peak of memory in MB, and the last loss."""
    torch.set_num_threads(1)
    base = load_base(given.work / "base")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base.llava.requires_grad_(False).to(device)
    uri = (given.work / stage).read_text()
    told = Conversations(uri, np.arange(SampleTable(uri).rows))
    template = "plain" if stage == "projector" else "chat"
    words = base.words
    transcript = Transcript(words.tokenizer, template, words.image_id, words.image_tokens, 2048)
    train = _ours if who == "ours" else _trainer
    speed, loss = train(base, told, transcript, stage, device, given)
    if device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 1e6
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"speed": speed, "memory": memory, "loss": loss}


def _ours(
    base: Any,
    told: Conversations,
    transcript: Transcript,
    stage: str,
    device: str,
    given: argparse.Namespace,
) -> tuple[float, float]:
    model = trial_model(base.llava, "mlp2x_gelu", 0)
    settings = {"batch_size": given.batch, "learning_rate": 1e-4, "clip_norm": 1.0}
    config = TalkConfig(**settings)
    if stage == "finetune":
        open_language(model)
        data = {"type": "shapes_questions", "samples": len(told)}
        config = FinetuneConfig.model_validate({"dataset": data, "samples": len(told), **settings})
    looks = Squares(base.words.pixels, "crop")
    objective = NextTokens(model, told, transcript, looks, device)
    training = AdditiveTraining(objective, len(told), config, 0, device)
    warm = WARM * given.batch
    states = training.run((warm, len(told)))
    next(states)
    _finish(device)
    start = time.perf_counter()
    state = next(states)
    _finish(device)
    return (len(told) - warm) / (time.perf_counter() - start), state.loss


class _Samples(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What the peer reads: files of images in memory, decoded when they are asked for."""

    def __init__(self, told: Conversations, transcript: Transcript, pixels: Pixels) -> None:
        self._told = told.take(np.arange(len(told)))
        self._transcript, self._pixels = transcript, pixels

    def __len__(self) -> int:
        return len(self._told)

    def __getitem__(self, at: int) -> dict[str, Any]:
        one = self._told[at]
        encoded = self._transcript.sample(one.turns)
        square = torch.from_numpy(self._pixels.square(one.images[0], "crop"))
        ids = torch.tensor(encoded.ids, dtype=torch.long)
        labels = torch.tensor(encoded.labels, dtype=torch.long)
        return {"input_ids": ids, "labels": labels, "square": square}


def _trainer(
    base: Any,
    told: Conversations,
    transcript: Transcript,
    stage: str,
    device: str,
    given: argparse.Namespace,
) -> tuple[float, float]:
    llava, pixels = base.llava, base.words.pixels
    start = trial_model(llava, "mlp2x_gelu", 0).llava.model.multi_modal_projector
    llava.model.multi_modal_projector.linear_1 = start.linear_1
    llava.model.multi_modal_projector.linear_2 = start.linear_2
    llava.model.multi_modal_projector.requires_grad_(True)
    if stage == "finetune":
        llava.model.language_model.float().requires_grad_(True)
        llava.lm_head.float().requires_grad_(True)
    pad = base.words.tokenizer.pad_token_id
    pad_sequence = torch.nn.utils.rnn.pad_sequence

    def collate(some: list[dict[str, Any]]) -> dict[str, Any]:
        ids = pad_sequence([one["input_ids"] for one in some], True, pad)
        labels = pad_sequence([one["labels"] for one in some], True, NOT_LEARNT)
        squares = torch.stack([one["square"] for one in some])
        return {
            "input_ids": ids,
            "attention_mask": (ids != pad).long(),
            "labels": labels,
            "pixel_values": pixels.normalised(squares),
        }

    clock = _Clock(device)
    arguments = transformers.TrainingArguments(
        output_dir=str(given.work / "trainer"),
        per_device_train_batch_size=given.batch,
        max_steps=given.steps + WARM,
        learning_rate=1e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,  # a ratio, below one
        weight_decay=0.0,
        bf16=device == "cuda",
        use_cpu=device == "cpu",
        dataloader_num_workers=1,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=given.steps + WARM,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model=llava,
        args=arguments,
        train_dataset=_Samples(told, transcript, pixels),
        data_collator=collate,
        callbacks=[clock],
    )
    loss = trainer.train().training_loss
    return given.steps * given.batch / clock.seconds, loss


class _Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """Times the steps behind the first ones."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._times: list[float] = []

    @property
    def seconds(self) -> float:
        return self._times[-1] - self._times[WARM - 1]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        _finish(self._device)
        self._times.append(time.perf_counter())


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
