"""Stands in for vbench 0.1.5: how it is called, finds its videos, and what it writes.

Values are hashes of the files. ``STAND_IN`` has it do what VBench does in trouble: ``nan`` and
``323.99`` are written as they come, ``silent`` writes nothing and ends well (its command runs all
in a shell), ``skip`` leaves out a video that cannot be read, ``unseen`` the videos without what
``color`` looks for, ``short`` a dimension. In the folder ``STAND_IN_PLACE`` every call leaves a
note when it begins, ``begun-*``, and one when it has ended, ``ended-*``; while there is a file
``hold``, calls wait between.
"""

import hashlib
import json
import os
import time
from pathlib import Path

TROUBLE = os.environ.get("STAND_IN", "")
PLACE = os.environ.get("STAND_IN_PLACE", "")
TRUE_OR_FALSE = ("human_action", "dynamic_degree")
PERCENT = ("imaging_quality",)


class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.device = device
        self.full_info_dir = full_info_dir
        self.output_path = output_path
        os.makedirs(self.output_path, exist_ok=True)  # noqa: PTH103

    def build_full_info_json(self, videos_path, name, dimension_list):
        found = []
        names = os.listdir(videos_path)  # noqa: PTH208
        postfix = Path(names[0]).suffix
        for entry in json.loads(Path(self.full_info_dir).read_text()):
            if set(dimension_list) & set(entry["dimension"]):
                entry["video_list"] = []
                for i in range(5):
                    intended = f"{entry['prompt_en']}-{i}{postfix}"
                    if intended in names:
                        entry["video_list"].append(f"{videos_path}/{intended}")
                    else:
                        print(f"WARNING!!! This required video is not found! {intended}")
                found.append(entry)
        path = Path(self.output_path, f"{name}_full_info.json")
        path.write_text(json.dumps(found))
        return path

    def evaluate(
        self,
        videos_path,
        name,
        prompt_list=(),
        dimension_list=None,
        local=False,
        read_frame=False,
        mode="vbench_standard",
    ):
        assert local, "weights are where they were put"
        assert not read_frame
        assert mode == "vbench_standard"
        assert Path(os.environ["VBENCH_CACHE_DIR"]).is_dir()
        if PLACE:
            Path(PLACE, f"begun-{os.getpid()}-{time.time_ns()}").touch()
            while Path(PLACE, "hold").exists():
                time.sleep(0.05)
        entries = json.loads(
            self.build_full_info_json(videos_path, name, dimension_list).read_text()
        )
        results = {one: self.compute(one, entries) for one in dimension_list}
        if TROUBLE == "short":
            results.pop(dimension_list[-1])
        if TROUBLE == "silent":
            return
        path = Path(self.output_path, f"{name}_eval_results.json")
        path.write_text(json.dumps(results, indent=4))
        if PLACE:
            Path(PLACE, f"ended-{os.getpid()}-{time.time_ns()}").touch()

    def compute(self, dimension, entries):
        own = [entry for entry in entries if dimension in entry["dimension"]]
        videos = [video for entry in own for video in entry["video_list"]]
        if dimension == "scene":
            assert all(entry["auxiliary_info"]["scene"]["scene"]["scene"] for entry in own)
        if TROUBLE == "skip" or (TROUBLE == "unseen" and dimension == "color"):
            videos = videos[1:]
        values = [value_of(video) for video in videos]
        if dimension in TRUE_OR_FALSE:
            values = [value > 0.5 for value in values]
        mean = sum(values) / len(values)  # of none, VBench divides by zero too
        if TROUBLE == "nan":
            mean = float("nan")
        elif TROUBLE == "323.99":
            mean = 323.99
        scale = 100 if dimension in PERCENT else 1
        paths = zip(videos, values, strict=True)
        return [mean, [{"video_path": v, "video_results": value * scale} for v, value in paths]]


def value_of(path):
    return hashlib.sha256(Path(path).read_bytes()).digest()[0] / 255
