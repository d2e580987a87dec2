"""Stands in for InternVL's: says how many processes there are, and which one this is."""

import os


def init_dist(launcher):
    """As InternVL's: what started the processes is named, or Slurm is asked."""
    if launcher == "pytorch":
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if launcher == "slurm":
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    raise ValueError(f"Invalid launcher type: {launcher}")
