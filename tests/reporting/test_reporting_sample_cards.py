"""Samples as people look at them: what is shown, what is not, and how much of it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_tables import written

from djsandbox_ray.dataset.media import Media, Turn
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.pools.order import hash_key
from djsandbox_ray.reporting.sample_cards import FRAMES, SIDE, SampleCards, at_the_end, thumbnail

KEY = hash_key(0, "test")


def png(width: int = 8, height: int = 8, shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(source: str) -> Image.Image:
    head, _, data = source.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def sample(text: str, image: bytes = b"", media: tuple[Media, ...] = (), turns=()) -> Sample:
    return Sample(image, text, "here", {}, media, turns)


@pytest.fixture
def table(tmp_path: Path) -> SampleTable:
    talk = (Turn("user", "<__dj__image> what?"), Turn("assistant", "a cat"))
    items = [
        sample("red", png(400, 200)),
        sample("a word " * 100),
        sample("a cat", media=(Media("image", png()), Media("image", png(9, 9))), turns=talk),
        sample("https://me:secret@example.com/x", png()),
    ]
    return written(items, tmp_path)[0]


def cards(table: SampleTable, **more) -> SampleCards:
    return SampleCards(table, more.pop("forbidden", None), more.pop("mask", str), **more)


def test_pictures_are_small_and_texts_short(table: SampleTable) -> None:
    red, words, talk = cards(table).of([0, 1, 2])
    assert picture(red.source).size == (SIDE, SIDE // 2)
    assert (red.caption, red.note, red.instead) == ("red", "row 0", "")
    assert (words.source, words.instead) == ("", "")
    assert words.caption.endswith(" ...")
    assert len(words.caption) < 260
    assert talk.caption == "user: what?\nassistant: a cat"
    assert talk.instead == "and 1 more"
    assert picture(talk.source).size == (8, 8)  # never scaled up


def test_rows_may_repeat_and_have_notes_of_their_own(table: SampleTable) -> None:
    made = cards(table).of(np.array([1, 0, 1]), ["0.1", "0.2", "0.3"])
    assert [card.note for card in made] == ["0.1", "0.2", "0.3"]
    assert made[0].caption == made[2].caption
    assert cards(table).of([]) == []


def test_what_a_policy_forbids_is_not_shown_at_all(table: SampleTable) -> None:
    forbidden = np.array([True, False, False, False])
    hidden, shown = cards(table, forbidden=forbidden).of([0, 2])
    assert (hidden.caption, hidden.source) == ("", "")
    assert hidden.instead == "not shown: a policy forbids it"
    assert shown.source


def test_secrets_in_texts_are_masked(table: SampleTable) -> None:
    (card,) = cards(table, mask=lambda text: text.replace("secret", "***")).of([3])
    assert card.caption == "https://me:***@example.com/x"


def test_what_cannot_be_decoded_says_so_and_takes_nothing_with_it(
    table: SampleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.images.MAX_PIXELS", 100)
    large, fine = cards(table).of([0, 2])
    assert large.instead == "400 x 200 pixels are more than 100"
    assert (large.caption, large.source) == ("red", "")
    assert fine.source
    lost = cards(SampleTable(table.uri + ".lost")).of([0])
    assert [(card.caption, card.instead) for card in lost] == [("", "cannot be read")]


def test_a_page_stays_of_one_size(table: SampleTable) -> None:
    one = len(cards(table).of([0])[0].source)
    made = cards(table, most_bytes=2 * one).of([0, 0, 0])
    assert [bool(card.source) for card in made] == [True, True, False]
    assert "too large" in made[2].instead
    assert made[2].caption == "red"
    (none,) = cards(table, most_bytes=0).of([0])
    assert not none.source


def test_a_video_moves() -> None:
    pytest.importorskip("av")
    from djsandbox_ray.dataset.clips import encoded

    shades = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20
    data = encoded(np.broadcast_to(shades, (12, 24, 320, 3)).copy())
    moving = picture(thumbnail(Media("video", data)))
    assert (getattr(moving, "n_frames", 1), moving.size) == (FRAMES, (SIDE, 12))


def test_the_ends_of_a_statistic_leave_ties_to_chance() -> None:
    values = np.array([np.nan, 3.0, 1.0, 2.0, 0.0, *np.zeros(100)])
    rows = np.arange(len(values))
    assert at_the_end(values, rows, 3, KEY, highest=True).tolist() == [2, 3, 1]
    lowest = at_the_end(values, rows, 4, KEY, highest=False)
    assert (values[lowest] == 0).all()
    assert lowest.tolist() != [4, 5, 6, 7]
    assert at_the_end(values, rows, 4, KEY, highest=False).tolist() == lowest.tolist()
    assert at_the_end(values, rows[:4], 9, KEY, highest=False).tolist() == [2, 3, 1]
    assert at_the_end(values, rows[:1], 9, KEY, highest=False).tolist() == []
