"""Stands in for ModelScope's trainers: how one is built and told, its files, a model of words.

Arguments, the order in which a configuration is put together, the steps of an epoch and the text
logger's lines are as in its EpochBasedTrainer; the loss is that of the model here.
"""

import json
import os
import random
from pathlib import Path

from captioner import Captioner, features
from PIL import Image

ARGUMENTS = ("max_epochs", "launcher", "use_fp16", "device", "cfg_options")
HOOKS = ("CheckpointHook", "TextLoggerHook", "IterTimerHook", "ClipClampLogitScaleHook")
RATE = 2000.0
"""Of this model's steps, in those of its optimizer."""


class ClipTrainer:
    def __init__(
        self,
        model=None,
        cfg_file=None,
        cfg_modify_fn=None,
        train_dataset=None,
        eval_dataset=None,
        work_dir=None,
        seed=42,
        **kwargs,
    ):
        if unknown := sorted(set(kwargs) - set(ARGUMENTS)):
            raise TypeError(f"unexpected arguments {unknown}")
        self.model_dir = Path(model)
        written = Path(cfg_file or self.model_dir / "configuration.json").read_text()
        self.cfg = json.loads(written)
        if cfg_modify_fn is not None:
            self.cfg = cfg_modify_fn(self.cfg)
        for hook in self.cfg["train"]["hooks"]:
            assert hook["type"] in HOOKS, f"{hook['type']} is not in the hooks registry"
        len(train_dataset)  # the schedule of the learning rate asks for it
        kept = self.model_dir / "model.json"
        self.model = Captioner.load(kept) if kept.exists() else Captioner()
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.work_dir, self.seed, self.iter = Path(work_dir), seed, 0
        self.work_dir.mkdir(exist_ok=True)
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world > 1:
            assert self.cfg["train"]["launcher"] == "pytorch", "no process group"

    def _seen(self, sample):
        keys = self.cfg["dataset"]["column_map"]
        image, text = sample[keys["img"]], sample[keys["text"]]
        if not isinstance(image, Image.Image):
            raise TypeError(f"img should be PIL.Image or List[PIL.Image], but got {type(image)}")
        return features(image), text

    def _batches(self, dataset, loader):
        rows = [self._seen(dataset[place]) for place in range(len(dataset))]
        if loader.get("shuffle", True):
            random.Random(self.seed).shuffle(rows)
        size = loader["batch_size_per_gpu"] * self.world
        cut = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [batch for batch in cut if len(batch) == size or not loader.get("drop_last")]

    def train(self):
        settings = self.cfg["train"]
        every = {hook["type"]: hook.get("interval") for hook in settings["hooks"]}
        rate = RATE * settings["optimizer_hparams"]["lr"]
        for epoch in range(1, settings["max_epochs"] + 1):
            batches = self._batches(self.train_dataset, settings["dataloader"])
            self.model.know([text for batch in batches for _, text in batch], self.seed)
            for number, batch in enumerate(batches, 1):
                loss = sum(self.model.step(*one, rate) for one in batch) / len(batch)
                self.iter += 1
                if number % every["TextLoggerHook"] == 0:
                    self._log({"mode": "train", "epoch": epoch, "iter": number, "loss": loss})
        output = self.work_dir / "output"
        output.mkdir(exist_ok=True)
        self.model.save(output / "model.json")
        (output / "configuration.json").write_text(json.dumps(self.cfg))

    def _log(self, line):
        if os.environ.get("RANK", "0") == "0":
            line["loss"] = round(line["loss"], 5)
            with (self.work_dir / "20240101_000000.log.json").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def evaluate(self):
        settings = self.cfg["evaluation"]
        assert settings["metrics"] == [{"type": "inbatch_recall"}]
        hits, count = 0, 0
        for batch in self._batches(self.eval_dataset, settings["dataloader"]):
            odds = [self.model.odds(seen) for seen, _ in batch]
            for place, (_, text) in enumerate(batch):
                fits = [self.model.fit(one, text) for one in odds]
                hits += max(range(len(batch)), key=fits.__getitem__) == place
                count += 1
        return {"inbatch_t2i_recall_at_1": hits / count}


TRAINERS = {"clip-multi-modal-embedding": ClipTrainer}


def build_trainer(name="trainer", default_args=None):
    if name not in TRAINERS:
        raise KeyError(f"{name} is not in the trainers registry group default.")
    return TRAINERS[name](**(default_args or {}))
