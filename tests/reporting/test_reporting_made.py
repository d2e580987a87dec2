"""Videos of several models side by side: moving ones on the page, frames of them in a figure."""

from __future__ import annotations

import io

import numpy as np
from made_videos import SMALL, drawn
from PIL import Image

from djsandbox_ray.evaluation.video.video_files import video_bytes
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, WantedVideo
from djsandbox_ray.reporting.blocks import Gallery
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.reporting.made import MOST_PROMPTS, Made, made_chapter, made_figure, same_prompts
from djsandbox_ray.reporting.page import report_html

PROMPTS = [f"prompt {number} costs $1" for number in range(6)]
SAMPLING = SamplingConfig(**SMALL)


def made(title: str, prompts: list[str], still: bool = False) -> Made:
    videos = {name: drawn(WantedVideo(name), SAMPLING, still) for name in prompts}
    return Made(title, {name: video_bytes(frames, 8) for name, frames in videos.items()})


def test_only_prompts_of_which_all_have_videos_are_shown() -> None:
    best, worst = made("best", PROMPTS), made("worst", PROMPTS[:0:-1], still=True)
    assert same_prompts([best, worst]) == PROMPTS[1 : 1 + MOST_PROMPTS]
    assert same_prompts([]) == same_prompts([best, Made("none", {})]) == []
    assert made_chapter([best, Made("none", {})]) is None


def test_a_page_has_them_as_moving_pictures() -> None:
    chapter = made_chapter([made("best <b>", PROMPTS[:2]), made("worst", PROMPTS, still=True)])
    assert chapter is not None
    (gallery,) = chapter.blocks
    assert isinstance(gallery, Gallery)
    assert [title for title, _ in gallery.groups] == ["best <b>", "worst"]
    assert [[card.caption for card in cards] for _, cards in gallery.groups] == [PROMPTS[:2]] * 2
    page = report_html("demo", [], chapters=[chapter])
    assert page.count("data:image/webp") == 4
    assert "<b>" not in page.split("<body", 1)[1]


def test_a_figure_has_frames_of_each_model_in_its_column() -> None:
    figure = made_figure([made("best", PROMPTS[:2]), made("worst", PROMPTS[:3], still=True)])
    strips = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert len(strips) == 4  # two prompts of two models
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0].split("\n")[0] == "best"
    assert titles[1].split("\n")[0] == "worst"
    moves, stands = (np.asarray(strip).astype(int) for strip in strips[:2])
    side = SAMPLING.size[0]
    step = (moves.shape[1] - side) // (SAMPLING.frames - 1)

    def frame(strip: np.ndarray, number: int) -> np.ndarray:
        return strip[:, number * step : number * step + side]

    assert np.abs(frame(stands, 0) - frame(stands, 4)).max() <= 1
    assert np.abs(frame(moves, 0) - frame(moves, 4)).max() > 50
    assert Image.open(io.BytesIO(png(figure))).format == "PNG"
