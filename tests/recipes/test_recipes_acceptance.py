"""Data-Juicer's own executor against the statistics: the same rows, or which ones differ."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_models
import yaml
from acceptance_world import (
    clip,
    compute,
    picture,
    shapes,
    tiny_classifier,
    write_documents,
    write_table,
)
from numpy.typing import NDArray
from PIL import Image

from djsandbox_ray.dataset.media import Content, Media, Turn, assistant_text, without_tokens
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES, Sample
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id, rows_hash
from djsandbox_ray.recipes.acceptance import APART, accept, explain, write_input
from djsandbox_ray.recipes.bounds import settle
from djsandbox_ray.recipes.export import recipe_document
from djsandbox_ray.recipes.recipe_file import Promise, RecipeFile, promised_ranges, read_recipe
from djsandbox_ray.records import Acceptance, Dataset, Range
from djsandbox_ray.stats.operators import OperatorSpec
from djsandbox_ray.storage.store import Storage

DEFECTS = {"boilerplate": 0.2, "repeated_words": 0.15, "special_characters": 0.15, "odd_size": 0.1}
TEXT = [
    OperatorSpec("text_length_filter"),
    OperatorSpec("words_num_filter"),
    OperatorSpec("special_characters_filter"),
    OperatorSpec("word_repetition_filter", {"rep_len": 2}),
    OperatorSpec("alphanumeric_filter"),
    OperatorSpec("character_repetition_filter", {"rep_len": 3}),
]


def middle(columns: dict[str, NDArray[np.float64]], share: float) -> list[Range]:
    """Return a range per statistic that cuts something off at both ends."""
    ends = {name: np.nanquantile(values, [share, 1 - share]) for name, values in columns.items()}
    return [
        Range(name, *settle(columns[name], float(low), float(high)))
        for name, (low, high) in ends.items()
    ]


def write_recipe(
    path: Path, specs: Sequence[OperatorSpec], ranges: Sequence[Range], **changes: Any
) -> Path:
    document = {**recipe_document("test", specs, ranges), **changes}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


class World:
    """A sample table with its statistics and a recipe for it."""

    def __init__(self, storage: Storage, dataset: Dataset, promise: Promise, recipe: Path) -> None:
        self.storage, self.dataset, self.promise = storage, dataset, promise
        self.recipe = recipe

    def accept(self, promised: NDArray[Any] | None = None, **options: Any) -> Acceptance:
        given = self.promise.mask() if promised is None else promised
        options = {"promise": self.promise, **options}
        return accept(self.recipe, self.storage, self.dataset, given, "accepted", **options)

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = self.storage.read_sealed("accepted/acceptance.json")
        return found


def build(
    storage: Storage,
    folder: Path,
    specs: Sequence[OperatorSpec],
    texts: list[str],
    images: list[bytes],
    share: float,
) -> World:
    columns = compute(specs, texts, images)
    ranges = middle(columns, share)
    recipe = write_recipe(folder / "recipe.yaml", specs, ranges)
    return World(
        storage, write_table(storage, texts, images), Promise(tuple(ranges), columns), recipe
    )


@pytest.fixture
def small(storage: Storage, tmp_path: Path) -> World:
    texts, images, _ = shapes(200, defects=DEFECTS)
    return build(storage, tmp_path, TEXT[:4], texts, images, 0.1)


@pytest.mark.slow
def test_nine_operators_keep_what_the_statistics_promise(storage: Storage, tmp_path: Path) -> None:
    texts, images, _ = shapes(400, defects=DEFECTS)
    texts[5] = "  blanks at both ends  "
    texts[6] = "漢字 und Ümläute — “quoted” \n two lines"
    model = tiny_models.clip_for(texts, tmp_path)
    specs = [
        *TEXT,
        OperatorSpec("image_size_filter"),
        OperatorSpec("image_aspect_ratio_filter"),
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(model)}),
    ]
    world = build(storage, tmp_path, specs, texts, images, 0.02)
    done = world.accept()
    assert world.result["differences"] == []
    assert (done.rows, done.differing) == (400, 0)
    assert 0.3 * 400 < done.kept == world.promise.mask().sum() < 0.95 * 400
    assert explain(world.result) == [
        f"Data-Juicer kept {done.kept} of 400 rows, the statistics promised {done.kept}: "
        "the same rows"
    ]
    # What is read back from the YAML is what was written into it.
    found = Promise(promised_ranges(read_recipe(world.recipe)), world.promise.columns)
    np.testing.assert_array_equal(found.mask(), world.promise.mask())


@pytest.mark.slow
def test_both_sides_of_one_threshold_are_kept(storage: Storage, tmp_path: Path) -> None:
    """An operator with one threshold stands in the recipe twice: once per side."""
    texts, images, _ = shapes(150, defects=DEFECTS)
    model = tiny_classifier(tmp_path / "watermark", ["clean", "watermark"])
    watermark = OperatorSpec("image_watermark_filter", {"hf_watermark_model": str(model)})
    specs = [watermark, OperatorSpec("text_length_filter")]
    world = build(storage, tmp_path, specs, texts, images, 0.1)
    recipe = read_recipe(world.recipe)
    assert [spec.name for spec in recipe.process].count("image_watermark_filter") == 2
    done = world.accept()
    assert world.result["differences"] == []
    assert (done.rows, done.differing) == (150, 0)
    assert 75 < done.kept == world.promise.mask().sum() < 140
    assert [spec.name for spec in recipe.operators] == [spec.name for spec in specs]
    assert promised_ranges(recipe) == world.promise.ranges


def test_an_operator_that_stands_there_twice_keeps_what_both_do(small: World) -> None:
    entries = [{"text_length_filter": {"min_len": n, "max_len": 10 * n}} for n in (3, 5)]
    small.recipe.write_text(yaml.safe_dump({"process": entries}))
    assert promised_ranges(read_recipe(small.recipe)) == (Range("text_len", 5, 30),)


def test_an_operator_that_stands_there_again_takes_over_what_it_leaves_out(small: World) -> None:
    """So does Data-Juicer."""
    document = yaml.safe_load(small.recipe.read_text())
    first, second = {"min_len": 40, "max_len": 60, "reversed_range": True}, {"min_len": 30}
    entries = [{"text_length_filter": params} for params in (first, second)]
    small.recipe.write_text(yaml.safe_dump({**document, "process": entries}))
    recipe = read_recipe(small.recipe)
    assert recipe.process[1].params == {**first, **second}
    lengths = small.promise.columns["text_len"]
    outside = ((lengths <= 40) | (lengths >= 60)) & ((lengths <= 30) | (lengths >= 60))
    assert small.accept(outside, promise=None).differing == 0


WORDS = ("a", "bright", "photo", "of!", "two", "dogs", "4711", "running", "running", "???", "seen")


def sentence(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(3, 14)))


def sample(content: Content, rng: np.random.Generator) -> Sample:
    """Return a sample with media that no text operator may take for text."""
    text, image = sentence(rng), Media("image", picture(12, 10, 0, "PNG"))
    if content == "conversations":
        asked = Turn("user", f"<__dj__image> {sentence(rng)}?")
        turns = (asked, Turn("assistant", text), Turn("user", "why?"), Turn("assistant", "so"))
        return Sample(b"", assistant_text(turns), "", {"id": 1}, (image,), turns)
    if content == "any":
        inside = f"<__dj__image> {text} <__dj__video> {sentence(rng)}"
        return Sample(b"", inside, "", media=(image, Media("video", clip(0))))
    media = {"videos": (Media("video", clip(0)),), "texts": ()}
    return Sample(b"", text, "", media=media[content])


@pytest.mark.slow
@pytest.mark.parametrize("content", ["texts", "conversations", "any", "videos"])
def test_data_juicer_keeps_what_is_promised_of_every_content(
    storage: Storage, tmp_path: Path, content: Content
) -> None:
    """Six operators on text."""
    rng = np.random.default_rng(3)
    samples = [sample(content, rng) for _ in range(200)]
    dataset = write_documents(storage, samples)
    plain = [without_tokens(one.text) for one in samples]
    columns = compute(TEXT, plain, [b""] * len(plain))
    ranges = middle(columns, 0.03)
    recipe = write_recipe(tmp_path / "recipe.yaml", TEXT, ranges)
    world = World(storage, dataset, Promise(tuple(ranges), columns), recipe)
    done = world.accept()
    assert world.result["differences"] == []
    assert (done.rows, done.differing) == (200, 0)
    assert 20 < done.kept == world.promise.mask().sum() < 195


def world_of(
    storage: Storage,
    folder: Path,
    specs: Sequence[OperatorSpec],
    samples: Sequence[Sample],
    share: float,
) -> World:
    """Return a world of samples with any media, statistics and recipe included."""
    images, videos = (
        [[one.data for one in sample.media if one.kind == kind] for sample in samples]
        for kind in ("image", "video")
    )
    columns = compute(specs, [one.text for one in samples], images, videos)
    ranges = middle(columns, share)
    recipe = write_recipe(folder / "recipe.yaml", specs, ranges)
    dataset = write_documents(storage, samples)
    return World(storage, dataset, Promise(tuple(ranges), columns), recipe)


@pytest.mark.slow
def test_videos_by_six_operators(storage: Storage, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    texts = [sentence(rng) for _ in range(20)]
    shape = zip(
        rng.integers(6, 14, 20).tolist(), (16 * rng.integers(2, 8, 20)).tolist(), strict=True
    )
    clips = [clip(seed, frames=frames, width=width) for seed, (frames, width) in enumerate(shape)]
    samples = [
        Sample(b"", text, "", media=(Media("video", data),))
        for text, data in zip(texts, clips, strict=True)
    ]
    model = str(tiny_models.clip_for(texts, tmp_path))
    specs = [
        OperatorSpec("text_length_filter"),
        OperatorSpec("video_duration_filter", {"video_backend": "av"}),
        OperatorSpec("video_resolution_filter"),
        OperatorSpec("video_aspect_ratio_filter"),
        OperatorSpec("video_motion_score_filter", {"sampling_fps": 6}),
        OperatorSpec("video_frames_text_similarity_filter", {"hf_clip": model, "frame_num": 2}),
    ]
    world = world_of(storage, tmp_path, specs, samples, 0.03)
    done = world.accept()
    assert world.result["differences"] == []
    assert (done.rows, done.differing, done.several) == (20, 0, 0)
    assert 5 < done.kept == world.promise.mask().sum() < 20


@pytest.mark.slow
def test_conversations_by_six_operators_on_text_and_images(
    storage: Storage, tmp_path: Path
) -> None:
    """Some have no image, and some have two: Data-Juicer decides otherwise on these alone."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(24, 96, (60, 2, 2)).tolist()
    samples = []
    for number, pair in enumerate(sizes):
        count = (1, 1, 1, 2, 0)[number % 5]
        media = [Media("image", picture(*size, number)) for size in pair[:count]]
        asked = Turn("user", "<__dj__image>" * count + sentence(rng))
        turns = (asked, Turn("assistant", sentence(rng)))
        samples.append(Sample(b"", assistant_text(turns), "", {}, tuple(media), turns))
    model = str(tiny_models.clip_for([one.text for one in samples], tmp_path))
    specs = [
        *TEXT[:2],
        OperatorSpec("image_size_filter"),
        OperatorSpec("image_shape_filter"),
        OperatorSpec("image_aspect_ratio_filter", {"any_or_all": "all"}),
        OperatorSpec("image_text_similarity_filter", {"hf_clip": model}),
    ]
    world = world_of(storage, tmp_path, specs, samples, 0.04)
    done = world.accept()
    assert world.result["differences"] == []
    assert (done.rows, done.differing) == (60, 0)
    assert 0 < done.several <= 24  # those without an image are kept by Data-Juicer
    assert 15 < done.kept < 60
    assert explain(world.result)[1].startswith(
        f"{done.several} other rows differ as their values say"
    )


def interleaved(folder: Path, rng: np.random.Generator) -> list[Sample]:
    """Return documents of one to three images, read from a file of OBELICS' layout."""
    lines = []
    for number in range(48):
        texts, images = [], []
        for place in range(1 + number % 3):
            name = f"{number}-{place}.jpg"
            width, height = rng.integers(24, 96, 2).tolist()
            (folder / name).write_bytes(picture(width, height, number))
            texts += [None, sentence(rng)]
            images += [name, None]
        lines.append(json.dumps({"texts": texts, "images": images}))
    (folder / "documents.jsonl").write_text("\n".join(lines))
    kind = SOURCES.get("interleaved")
    config = {"type": "interleaved", "path": str(folder / "documents.jsonl")}
    source = kind(kind.Config.model_validate(config))
    return [item for shard in source.shards() for item in shard.read() if isinstance(item, Sample)]


def conversations(rng: np.random.Generator) -> list[Sample]:
    """Return conversations about one image, about two, or about none."""
    made = []
    for number in range(48):
        sizes = rng.integers(24, 96, ((1, 2, 0)[number % 3], 2)).tolist()
        media = tuple(Media("image", picture(*size, number)) for size in sizes)
        asked = Turn("user", "<__dj__image>" * len(media) + sentence(rng))
        turns = (asked, Turn("assistant", sentence(rng)))
        made.append(Sample(b"", assistant_text(turns), "", {}, media, turns))
    return made


def decided_for_each(
    samples: Sequence[Sample], ranges: Sequence[Range], strategy: str
) -> NDArray[np.bool_]:
    """Return what Data-Juicer is to keep: each image is compared, and a sample without one stays.

    From the sizes of the pictures, by the words of its documentation.
    """
    bounds = {r.statistic: (r.low or -np.inf, r.high or np.inf) for r in ranges}
    of_all = {"any": any, "all": all}[strategy]

    def within(name: str, value: float) -> bool:
        return bool(bounds[name][0] <= value <= bounds[name][1])

    kept = []
    for one in samples:
        sizes = [Image.open(io.BytesIO(medium.data)).size for medium in one.all_media]
        shapes = [within("image_width", w) and within("image_height", h) for w, h in sizes]
        ratios = [within("aspect_ratios", w / h) for w, h in sizes]
        length = within("text_len", len(without_tokens(one.text)))
        kept.append(length and (not sizes or (of_all(shapes) and of_all(ratios))))
    return np.array(kept)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["any", "all"])
@pytest.mark.parametrize("content", ["documents", "conversations"])
def test_samples_of_several_images_by_two_operators_on_them(
    storage: Storage, tmp_path: Path, content: str, strategy: str
) -> None:
    """Rows differ where a mean and its parts lie on two sides of a threshold, and on no others."""
    rng = np.random.default_rng(6)
    (folder := tmp_path / "read").mkdir()
    samples = interleaved(folder, rng) if content == "documents" else conversations(rng)
    assert sorted({len(one.all_media) for one in samples}) == (
        [1, 2, 3] if content == "documents" else [0, 1, 2]
    )
    specs = [
        OperatorSpec("text_length_filter"),
        OperatorSpec("image_shape_filter", {"any_or_all": strategy}),
        OperatorSpec("image_aspect_ratio_filter", {"any_or_all": strategy}),
    ]
    world = world_of(storage, tmp_path, specs, samples, 0.1)
    done = world.accept()
    mask = world.promise.mask()
    expected = decided_for_each(samples, world.promise.ranges, strategy)
    sole = np.array([len(one.all_media) == 1 for one in samples])
    assert world.result["differences"] == []
    assert (done.rows, done.differing) == (48, 0)
    assert np.array_equal(mask[sole], expected[sole])
    assert (done.kept, done.several) == (expected.sum(), (mask != expected).sum())
    assert done.several > 0
    assert 0 < mask[~sole].sum() < (~sole).sum()
    # What it keeps is, row by row, what each image says.
    rows = rows_hash(np.flatnonzero(expected))
    assert done.id == content_id("acceptance", world.result, world.recipe.read_text(), rows)
    apart = pq.read_table(f"{storage.url}/accepted/{APART}").to_pydict()
    assert apart["row_id"] == np.flatnonzero(mask != expected).tolist()
    assert apart["kept"] == expected[mask != expected].tolist()
    # Of what the values do not say, no row is excused for the number of its images.
    wrong = np.flatnonzero(~sole & (mask == expected))[:3]
    tampered = np.where(np.isin(np.arange(48), wrong), ~mask, mask)
    again = world.accept(tampered)
    assert (again.differing, again.several) == (3, done.several)
    assert [item["row_id"] for item in world.result["differences"]] == wrong.tolist()


@pytest.mark.slow
def test_texts_that_are_compared_with_a_field_of_the_meta_data(
    storage: Storage, tmp_path: Path
) -> None:
    """The recipe names the field; rows without it are kept by Data-Juicer, and counted apart."""
    rng = np.random.default_rng(7)
    texts = [" ".join(rng.choice(WORDS[:8], 5)) for _ in range(40)]
    titles = ["" if number % 10 == 9 else " ".join(rng.choice(WORDS, 4)) for number in range(40)]
    metas = [{"page": {"title": title}} if title else {"page": 1} for title in titles]
    field, model = "meta.page.title", str(tiny_models.clip_for(texts + titles, tmp_path))
    specs = [
        OperatorSpec("text_length_filter"),
        OperatorSpec("text_pair_similarity_filter", {"hf_clip": model, "text_key_second": field}),
    ]
    columns = compute(specs, texts, None, fields={field: titles})
    ranges = middle(columns, 0.1)
    recipe = write_recipe(tmp_path / "recipe.yaml", specs, ranges)
    (_, entry) = yaml.safe_load(recipe.read_text())["process"]
    assert entry["text_pair_similarity_filter"]["text_key_second"] == field
    dataset = write_table(storage, texts, [picture(8, 8, 0)] * 40, metas)
    world = World(storage, dataset, Promise(tuple(ranges), columns), recipe)
    done = world.accept()
    mask, (lengths, _) = world.promise.mask(), ranges
    without = np.array([not title for title in titles])
    assert not mask[without].any()
    inside = (columns["text_len"] >= lengths.low) & (columns["text_len"] <= lengths.high)
    assert world.result["differences"] == []
    assert (done.rows, done.differing, done.several) == (40, 0, (without & inside).sum())
    assert done.kept == mask.sum() + done.several
    assert 10 < mask.sum() < 36
    assert done.several > 0


def test_what_a_recipe_reads_is_what_is_written(storage: Storage, tmp_path: Path) -> None:
    """Media are files only where an operator reads them, tokens only where it looks for them."""
    rng = np.random.default_rng(1)
    contents: list[Content] = ["any", "conversations", "texts", "videos"]
    samples = [sample(content, rng) for content in contents]
    table = SampleTable(storage.uri(write_documents(storage, samples).table))
    process = [
        {"text_length_filter": {}},
        {"image_aspect_ratio_filter": {}},
        {"video_frames_text_similarity_filter": {"text_key": "text_with_tokens"}},
    ]

    def written(*operators: int) -> list[dict[str, Any]]:
        path = tmp_path / f"{operators}.yaml"
        path.write_text(yaml.safe_dump({"process": [process[index] for index in operators]}))
        folder = tmp_path / f"data{operators}"
        file = write_input(read_recipe(path), table, np.arange(4), folder)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        media = [line.get(key, []) for line in lines for key in ("images", "videos")]
        named = [name for paths in media for name in paths]
        assert all((folder / name).is_file() for name in named)
        assert len(list(folder.rglob("*.*"))) == 1 + len(named)
        return lines

    (document, talk, text, video) = written(0)
    assert document == {"row_id": 0, "text": without_tokens(samples[0].text)}
    assert talk == {"row_id": 1, "text": samples[1].text}
    (document, talk, text, video) = written(0, 1, 2)
    assert [len(line["images"]) for line in (document, talk, text, video)] == [1, 1, 0, 0]
    assert [len(line["videos"]) for line in (document, talk, text, video)] == [1, 0, 0, 1]
    assert document["text_with_tokens"] == samples[0].text
    assert talk["text_with_tokens"] == f"<__dj__image> {samples[1].text} <|__dj__eoc|>"
    assert text["text_with_tokens"] == text["text"]
    assert video["text_with_tokens"] == f"<__dj__video> {samples[3].text} <|__dj__eoc|>"


def test_a_tampered_promise_names_the_rows_among_those_that_are_tried(small: World) -> None:
    tried = np.arange(200) % 4 != 0
    mask = small.promise.mask()
    kept, dropped = np.flatnonzero(mask & tried)[:3], np.flatnonzero(~mask & tried)[:2]
    tampered = np.where(tried, mask, ~mask)  # of the others nothing is said
    tampered[kept] = False
    tampered[dropped] = True
    done = small.accept(tampered, rows=np.flatnonzero(tried))
    assert (done.rows, done.differing, done.kept) == (150, 5, (mask & tried).sum())
    result = small.result
    assert (result["only_data_juicer"], result["only_statistics"]) == (3, 2)
    by_row = {item["row_id"]: item for item in result["differences"]}
    assert sorted(by_row) == sorted([*kept.tolist(), *dropped.tolist()])
    for row in kept.tolist():
        assert by_row[row]["kept_by"] == "data_juicer"
        values = {item["statistic"]: item["value"] for item in by_row[row]["statistics"]}
        assert values == pytest.approx(by_row[row]["data_juicer"])
    for row in dropped.tolist():
        assert by_row[row]["kept_by"] == "statistics"
        assert not any(item["inside"] for item in by_row[row]["statistics"])
    lines = explain(result)
    assert "5 rows differ" in lines[0]
    assert len(lines) == 6
    assert any("not in [" in line for line in lines)


@pytest.mark.slow
def test_a_tampered_recipe_is_found_too(small: World) -> None:
    document = yaml.safe_load(small.recipe.read_text())
    lengths = document["process"][0]["text_length_filter"]
    lengths["min_len"] += 5
    small.recipe.write_text(yaml.safe_dump(document))
    done = small.accept()
    lost = small.promise.mask() & (small.promise.columns["text_len"] < lengths["min_len"])
    assert done.differing == lost.sum() > 0
    assert [item["row_id"] for item in small.result["differences"]] == np.flatnonzero(lost)[
        :20
    ].tolist()


@pytest.mark.slow
def test_nothing_kept_is_a_result(small: World) -> None:
    document = yaml.safe_load(small.recipe.read_text())
    document["process"][0]["text_length_filter"]["min_len"] = 10_000
    small.recipe.write_text(yaml.safe_dump(document))
    done = small.accept(np.zeros(200, bool))
    assert (done.kept, done.differing) == (0, 0)


@pytest.mark.slow
def test_a_temporary_folder_of_a_long_name_will_do(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket fits into it, and Data-Juicer's processes speak with each other through some."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert small.accept(processes=2).differing == 0


def test_a_failure_of_data_juicer_is_an_error_with_its_words(small: World) -> None:
    document = yaml.safe_load(small.recipe.read_text())
    document["process"][0]["text_length_filter"]["nosuch"] = 1
    small.recipe.write_text(yaml.safe_dump(document))
    with pytest.raises(SandboxError, match=r"(?s)Data-Juicer failed on .*nosuch"):
        small.accept()
    assert not small.storage.exists("accepted")


def test_masks_and_rows_must_fit(small: World) -> None:
    with pytest.raises(BadInput, match=r"promised: a mask of shape \(200,\)"):
        small.accept(np.ones(3, bool))
    with pytest.raises(BadInput, match="rows: row ids from 0 to 200"):
        small.accept(rows=np.array([0, 200]))
    with pytest.raises(BadInput, match="no rows to try"):
        small.accept(rows=np.array([], np.int64))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("process: []", "at least one Data-Juicer filter"),
        ("process: [text_length_filter]", r"process\[0\]: one 'name: "),
        ("process: [{nosuch_filter: {}}]", "'nosuch_filter' is not a filter"),
        ("process: [{text_length_filter: 3}]", "parameters must be a mapping"),
    ],
)
def test_a_recipe_that_is_none_is_refused(small: World, text: str, why: str) -> None:
    small.recipe.write_text(text)
    with pytest.raises(BadInput, match=why):
        small.accept()
    small.recipe.unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        small.accept()


def test_one_text_column_cannot_serve_both_kinds_of_operators(small: World) -> None:
    entries = [{"text_length_filter": {}}, {"image_text_similarity_filter": {"hf_clip": "x"}}]
    small.recipe.write_text(yaml.safe_dump({"process": entries}))
    with pytest.raises(BadInput, match="column 'text', where text_length_filter would count"):
        small.accept()


@pytest.mark.parametrize(
    ("name", "params", "bounds"),
    [
        ("text_length_filter", {}, (10, None)),
        ("text_length_filter", {"min_len": 3, "max_len": 7}, (3, 7)),
        (
            "words_num_filter",
            {"min_num": 3, "min_closed_interval": False},
            (np.nextafter(3, 4), None),
        ),
        ("image_size_filter", {"min_size": "2 KB", "max_size": "5000"}, (2048, 5000)),
    ],
)
def test_thresholds_are_read_back(
    name: str, params: dict[str, Any], bounds: tuple[float | None, float | None]
) -> None:
    (found,) = promised_ranges(RecipeFile(Path("here"), {}, (OperatorSpec(name, params),)))
    assert (found.low, found.high) == bounds


def test_two_ranges_are_no_promise() -> None:
    spec = OperatorSpec("text_length_filter", {"min_len": 3, "max_len": 7, "reversed_range": True})
    with pytest.raises(BadInput, match="here: text_length_filter with reversed_range"):
        promised_ranges(RecipeFile(Path("here"), {}, (spec,)))


@pytest.mark.shared_data
@pytest.mark.slow
def test_coco_captions(storage: Storage, tmp_path: Path, shared_data: Path) -> None:
    """Real captions, 5,000 of them; no operator reads the image that every row must have."""
    path = shared_data / "coco_captions" / "coco_val2017_captions.parquet"
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()[:5000]
    world = build(storage, tmp_path, TEXT, texts, [picture(8, 8, 0)] * len(texts), 0.05)
    done = world.accept()
    assert world.result["differences"] == []
    assert 0.5 * 5000 < done.kept < 0.95 * 5000


@pytest.mark.shared_data
@pytest.mark.slow
def test_coco_photos(storage: Storage, tmp_path: Path, shared_data: Path) -> None:
    table = pq.read_table(shared_data / "coco_open_photos" / "coco_open_photos_256.parquet")
    specs = [
        *TEXT[:4],
        OperatorSpec("image_shape_filter"),
        OperatorSpec("image_size_filter"),
        OperatorSpec("image_aspect_ratio_filter"),
    ]
    texts, images = table["text"].to_pylist(), table["image"].to_pylist()
    world = build(storage, tmp_path, specs, texts, images, 0.03)
    done = world.accept()
    assert world.result["differences"] == []
    assert (done.rows, done.differing) == (111, 0)
    assert 30 < done.kept < 105
