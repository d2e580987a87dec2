"""The plan of a comparison, as far as its statistics depend on it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Design:
    """How many arms and seeds are compared, and how draws are taken.

    Raises:
        ValueError: a number outside its range.
    """

    pools: int
    """Arms compared with the controls: the family over which errors are controlled."""
    controls: int
    """Control arms."""
    seeds: int
    """Trials per arm, each on a draw of its own."""
    draw_share: float = 0.5
    """Size of a draw over the size of a bucket, in (0, 1]; 1 means whole buckets."""
    bucket_share: float = 1 / 3
    """Size of a bucket over the number of rows that buckets are made of, in (0, 1): 1/b for a plain
    cut into b buckets, less where they are trimmed."""

    def __post_init__(self) -> None:
        for name, least in (("pools", 1), ("controls", 2), ("seeds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; at least {least} is needed")
        if not 0 < self.draw_share <= 1:
            raise ValueError(f"draw_share is {self.draw_share}; a share in (0, 1] is needed")
        if not 0 < self.bucket_share < 1:
            raise ValueError(f"bucket_share is {self.bucket_share}; a share in (0, 1) is needed")

    @property
    def bucket_bound(self) -> float:
        """The greatest ratio of the bucket's variance to the variance of trials within an arm.

        With v the variance that the samples of one draw cause and t that of training, trials of
        one arm vary by v (1 - draw_share) + t and the arm as a whole by v draw_share (1 -
        bucket_share), finite-population variances (Cochran, Sampling Techniques, section 2.6):
        without training noise the ratio is greatest. Infinite for whole buckets, where trials of
        an arm differ by training alone.
        """
        if self.draw_share == 1:
            return math.inf
        return self.draw_share * (1 - self.bucket_share) / (1 - self.draw_share)
