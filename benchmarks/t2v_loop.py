"""Steps per second of the training of a text-to-video model beside a bare loop.

The peer is what a script for LoRA on diffusers comes down to: the same transformer with peft's
adapters, latents and embeddings of captions in memory, noise by torch, AdamW. Ours is the training
of a trial: the loop, its objective, and the loader that reads the store of latents. Both begin with
the same weights and have the same batches in steps, the same precision and one thread of torch.
Each measurement is a process, and they take turns.
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
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import peft
import torch

from djsandbox_ray.dataset.clips import ClipsConfig, ClipsSource
from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.loop import AdditiveTraining
from djsandbox_ray.trials.model_folders import shipped_arch
from djsandbox_ray.trials.t2v.base_folder import (
    CODEC,
    TRANSFORMER,
    Prompter,
    load_video_base,
)
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.family import adapted
from djsandbox_ray.trials.t2v.latents import StoredLatents, write_latents
from djsandbox_ray.trials.t2v.objective import Denoising, PromptBook
from djsandbox_ray.trials.t2v.patches import PatchCodec
from djsandbox_ray.trials.t2v.schedule import schedule_of
from djsandbox_ray.trials.t2v.small import write_parts
from djsandbox_ray.trials.t2v.training_clips import Clips


@dataclass(frozen=True)
class Size:
    """Of clips, of what the codec makes of them, and of the transformer."""

    frames: int
    side: int
    """Pixels of a frame."""
    patch: int
    """Pixels of a side, and frames, that become one latent."""
    channels: int
    heads: int
    width: int
    """Numbers of a head."""
    layers: int
    inner: int
    """Numbers between the two matrices of a layer."""


SIZES = {
    "tiny": Size(9, 32, 4, 12, 2, 32, 2, 128),
    "middle": Size(9, 64, 4, 16, 4, 64, 6, 1024),
    "large": Size(17, 256, 8, 16, 12, 128, 30, 8960),
}
"""The tiny one is that of ``configs/t2v.yaml``, the large one has Wan's 1.3 billion weights."""
FITTED = 40
"""Clips that the codec is fitted on."""
WARM = 3
"""Steps that are not timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        print(json.dumps(_measure(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.work = Path(folder)
        _write(given)
        found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
        for _ in range(given.repeats):
            for who, measured in found.items():
                measured.append(_process(who, given))
    where = "GPU" if torch.cuda.is_available() else "CPU"
    print(
        f"{given.size} on {where}, batch {given.batch}, {given.steps} steps, "
        f"median of {given.repeats}"
    )
    print(f"{'':22}{'steps/s':>10}{'ratio':>8}{'peak MB':>9}{'loss':>8}")
    base = statistics.median(one["speed"] for one in found["bare"])
    for who, label in (("bare", "bare loop, diffusers"), ("ours", "djsandbox_ray")):
        speed, memory, loss = (
            statistics.median(one[name] for one in found[who])
            for name in ("speed", "memory", "loss")
        )
        print(f"{label:22}{speed:10.2f}{speed / base:8.2f}{memory:9.0f}{loss:8.3f}")


def _config(given: argparse.Namespace) -> T2vModelConfig:
    size = SIZES[given.size]
    return T2vModelConfig(
        type="t2v",
        base={"path": str(given.work / "base")},
        frames=size.frames,
        stride=1,
        size=(size.side, size.side),
        lora={"rank": 16, "alpha": 16},
        batch_size=given.batch,
        learning_rate=1e-3,
        weight_decay=0.0,
        eps=1e-8,
        prompt_tokens=16,
    )


def _write(given: argparse.Namespace) -> None:
    """Write what both read: a base, clips with their latents, and embeddings of captions."""
    size, rows = SIZES[given.size], given.batch * (given.steps + WARM)
    connect(cpus=1)
    storage = Storage(str(given.work))
    settings = ClipsConfig(type="clips", samples=rows, frames=size.frames, size=size.side)
    table = ingest(ClipsSource(settings), storage, max_rejected=0).table
    shape = ClipShape(size.frames, (size.side, size.side))
    clips = Clips(storage.uri(table), shape, np.arange(rows))
    arch = shipped_arch("djsandbox_ray.trials.t2v", "tiny")
    arch["transformer"] |= {
        "num_attention_heads": size.heads,
        "attention_head_dim": size.width,
        "num_layers": size.layers,
        "ffn_dim": size.inner,
        "in_channels": size.channels,
        "out_channels": size.channels,
        "rope_max_seq_len": 128,
    }
    base = given.work / "base"
    base.mkdir()
    write_parts(base, arch, clips.captions(), seed=0)
    seen = (clips.take(np.array([row]))[0] for row in range(min(rows, FITTED)))
    codec, _ = PatchCodec.fitted(seen, size.channels, size.patch)
    (base / CODEC).mkdir()
    codec.save(base / CODEC)
    write_latents(str(given.work / "latents.lance"), clips, codec)
    (given.work / "captions.json").write_text(json.dumps(clips.captions()))


def _process(who: str, given: argparse.Namespace) -> dict[str, float]:
    words = [f"--{name}={getattr(given, name)}" for name in ("size", "batch", "steps", "work")]
    command = [sys.executable, __file__, *words, f"--role={who}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(given: argparse.Namespace) -> dict[str, float]:
    """Train; return steps per second, the peak of memory in MB, and the mean loss."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    captions = json.loads((given.work / "captions.json").read_text())
    stored = StoredLatents(str(given.work / "latents.lance"), np.arange(len(captions)))
    speed, loss = (_ours if given.role == "ours" else _bare)(given, stored, captions, device)
    if device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 1e6
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"speed": speed, "memory": memory, "loss": loss}


def _ours(
    given: argparse.Namespace, stored: StoredLatents, captions: list[str], device: str
) -> tuple[float, float]:
    config = _config(given)
    base = load_video_base(given.work / "base", device, half=device == "cuda")
    book = PromptBook(captions, _prompter(given, device))
    objective = Denoising(
        adapted(base, config, seed=0),
        base.adapter,
        schedule_of(base.scheduler, config.time, config.shift),
        stored,
        captions,
        book,
        seed=0,
        drop=0.0,
        device=device,
    )
    training = AdditiveTraining(objective, len(captions), config, 0, device)
    states = training.run((WARM * given.batch, len(captions)))
    next(states)
    _finish(device)
    start = time.perf_counter()
    state = next(states)
    _finish(device)
    return given.steps / (time.perf_counter() - start), state.loss


def _bare(
    given: argparse.Namespace, stored: StoredLatents, captions: list[str], device: str
) -> tuple[float, float]:
    config = _config(given)
    model = diffusers.WanTransformer3DModel.from_pretrained(given.work / "base" / TRANSFORMER)
    model.requires_grad_(False).to(device)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=16, lora_alpha=16, target_modules=targets)
    peft.inject_adapter_in_model(lora, model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if device == "cuda":
        for parameter in model.parameters():
            if not parameter.requires_grad and parameter.ndim >= 2:  # as trials lower it
                parameter.data = parameter.data.bfloat16()
    optimizer = torch.optim.AdamW(
        trained, lr=config.learning_rate, betas=config.betas, weight_decay=0.0, fused=True
    )
    latents = torch.from_numpy(stored.take(np.arange(len(captions)))).to(device)
    texts = _prompter(given, device)(captions).embeddings.to(device)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(captions))).to(device)
    losses: list[torch.Tensor] = []
    start = 0.0
    for step in range(WARM + given.steps):
        if step == WARM:
            _finish(device)
            start = time.perf_counter()
            losses.clear()
        some = order[step * given.batch : (step + 1) * given.batch]
        x0 = latents[some].float()
        noise = torch.randn_like(x0)
        times = torch.sigmoid(torch.randn(len(x0), device=device))
        share = times.reshape(-1, 1, 1, 1, 1)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            (found,) = model(
                hidden_states=(1 - share) * x0 + share * noise,
                timestep=1000 * times,
                encoder_hidden_states=texts[some],
                return_dict=False,
            )
        loss = torch.nn.functional.mse_loss(found.float(), noise - x0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        losses.append(loss.detach())
    _finish(device)
    return given.steps / (time.perf_counter() - start), float(torch.stack(losses).mean())


def _prompter(given: argparse.Namespace, device: str) -> Prompter:
    base = load_video_base(given.work / "base", "cpu", half=False)
    return Prompter(given.work / "base", type(base.adapter), 16, device)


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
