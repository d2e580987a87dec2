"""Stands in for InternVL's fine-tuning: its command line, its files, a model of words.

Options are those of its ModelArguments and DataTrainingArguments, and of the TrainingArguments of
transformers 4.37.2, as HfArgumentParser reads them; what is not among them is an error, as there.
The trainer's files are those that transformers' leaves.
"""

import argparse
import json
import math
import os
import random
import sys
from pathlib import Path

from internvl.dist_utils import init_dist
from PIL import Image

sys.path.append(str(Path(__file__).parents[3]))
from captioner import Captioner, features

MODEL = {
    str: "model_name_or_path vision_path llm_path mlp_path ps_version",
    bool: "freeze_llm freeze_backbone freeze_mlp unfreeze_lm_head grad_checkpoint"
    " use_fast_tokenizer use_liger",
    int: "unfreeze_vit_layers vision_select_layer use_backbone_lora use_llm_lora",
    float: "drop_path_rate",
}
DATA = {
    str: "conv_style meta_path normalize_type loss_reduction",
    bool: "pad2square use_data_resampling dynamic_image_size use_thumbnail use_packed_ds"
    " strict_mode replacement allow_overflow loss_reduction_all_gather",
    int: "max_seq_length force_image_size min_dynamic_patch max_dynamic_patch min_num_frame"
    " max_num_frame num_images_expected max_packed_tokens max_buffer_size log_freq",
    float: "down_sample_ratio",
}
TRAINING = {
    str: "output_dir evaluation_strategy lr_scheduler_type logging_strategy logging_dir run_name"
    " save_strategy deepspeed optim report_to resume_from_checkpoint",
    bool: "overwrite_output_dir do_train do_eval bf16 fp16 tf32 group_by_length"
    " gradient_checkpointing logging_nan_inf_filter logging_first_step save_safetensors"
    " save_only_model remove_unused_columns dataloader_drop_last ddp_find_unused_parameters",
    int: "per_device_train_batch_size gradient_accumulation_steps max_steps warmup_steps seed"
    " data_seed save_total_limit dataloader_num_workers ddp_timeout",
    float: "learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm"
    " num_train_epochs warmup_ratio logging_steps save_steps eval_steps",
}
DEFAULTS = {
    "conv_style": "internlm2-chat",
    "down_sample_ratio": 0.5,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "logging_nan_inf_filter": True,
    "logging_steps": 500.0,
    "max_steps": -1,
    "per_device_train_batch_size": 8,
    "seed": 42,
}
STYLES = ("Hermes-2", "internlm2-chat", "phi3-chat", "internvl2_5")
RATE = 2500.0
"""Of this model's steps, in those of a language model."""


def truth(text):
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"Truthy value expected: got {text}")


def arguments():
    parser = argparse.ArgumentParser()
    for table in (MODEL, DATA, TRAINING):
        for kind, names in table.items():
            for name in names.split():
                own = {"type": truth, "nargs": "?", "const": True} if kind is bool else {}
                needed = name == "output_dir"
                default = DEFAULTS.get(name, False if kind is bool else None)
                options = {"type": kind, "default": default, "required": needed, **own}
                parser.add_argument(f"--{name}", **options)
    return parser.parse_args()


def samples(meta_path):
    found = []
    for name, meta in json.loads(Path(meta_path).read_text()).items():
        assert meta["annotation"].endswith("jsonl"), f"{name}: annotation must be jsonl"
        assert (meta["data_augment"], meta["repeat_time"]) == (False, 1)
        for line in Path(meta["annotation"]).read_text().splitlines():
            sample = json.loads(line)
            question, answer = sample["conversations"]
            assert (question["from"], answer["from"]) == ("human", "gpt")
            assert question["value"].startswith("<image>\n")
            with Image.open(os.path.join(meta["root"], sample["image"])) as image:  # noqa: PTH118
                found.append((features(image), answer["value"]))
    return found


def main():
    rank, world = init_dist(os.environ.get("LAUNCHER", "slurm"))
    given = arguments()
    output = Path(given.output_dir)
    if any(output.iterdir()) and not given.overwrite_output_dir:
        raise ValueError(f"Output directory ({output}) already exists and is not empty.")
    assert given.conv_style in STYLES, given.conv_style
    assert Path(given.model_name_or_path, "config.json").is_file(), given.model_name_or_path
    assert Path(given.deepspeed).is_file(), given.deepspeed
    assert given.do_train
    assert given.max_steps > 0
    rows, draw = samples(given.meta_path), random.Random(given.seed)
    model, places, history, shown = Captioner(), [], [], []
    model.know([caption for _, caption in rows], given.seed)
    batch = given.per_device_train_batch_size * given.gradient_accumulation_steps * world
    for step in range(1, given.max_steps + 1):
        while len(places) < batch:
            places += draw.sample(range(len(rows)), len(rows))
        now, places = places[:batch], places[batch:]
        rate = RATE * given.learning_rate
        loss = sum(model.step(*rows[place], rate) for place in now) / batch
        if given.logging_nan_inf_filter and not math.isfinite(loss):
            loss = sum(shown) / len(shown)
        shown.append(loss)
        if step % given.logging_steps == 0:
            mean, shown = sum(shown) / len(shown), []
            history.append({"epoch": 0.0, "learning_rate": rate, "loss": mean, "step": step})
    if rank:
        return
    history.append({"epoch": 0.0, "train_loss": 0.0, "train_runtime": 1.0, "step": given.max_steps})
    model.save(output / "model.json")
    (output / "config.json").write_text(json.dumps({"template": given.conv_style}))
    state = {"global_step": given.max_steps, "log_history": history, "max_steps": given.max_steps}
    (output / "trainer_state.json").write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
