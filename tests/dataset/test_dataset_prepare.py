from __future__ import annotations

import json
import random
import struct
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.dataset import prepare
from djsandbox_ray.dataset.faults import kept_meta
from djsandbox_ray.dataset.fragments import Tally
from djsandbox_ray.dataset.prepare import (
    Aside,
    check,
    named_classes,
    prepared,
    refuse_unusable,
    shuffle_block,
    sliced,
)
from djsandbox_ray.dataset.source import Rejection, Remark, Sample, Shard
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import chain, content_id


def numbers(start: int, stop: int):
    return (Sample(b"", str(number), f"s#{number}") for number in range(start, stop))


def shards(*sizes: int, known: bool = True) -> list[Shard]:
    ends = np.cumsum(sizes).tolist()
    return [
        Shard(f"s{end}", None, partial(numbers, end - size, end), size if known else None)
        for size, end in zip(sizes, ends, strict=True)
    ]


def texts(some: list[Shard]) -> list[str]:
    return [item.text for shard in some for item in shard.read()]


@pytest.mark.parametrize("known", [True, False])
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    cut=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_rows_are_a_slice_of_all(known: bool, sizes: list[int], cut: tuple[int, int]) -> None:
    total = sum(sizes)
    start, stop = min(cut), max(cut) + 1
    if stop > total:
        with pytest.raises(BadInput, match=f"more than the {total} rows"):
            sliced(shards(*sizes, known=known), start, stop)
        return
    kept = sliced(shards(*sizes, known=known), start, stop)
    assert texts(kept) == [str(number) for number in range(start, stop)]
    assert all(shard.rows == len(list(shard.read())) for shard in kept)


def test_a_rejection_is_as_many_rows_as_it_stands_for_and_a_remark_none() -> None:
    def read():
        yield Remark("s#", "said", "at the start")
        yield Sample(b"", "0", "s#0")
        yield Rejection("s#1", "broken_shard", "rows 1 to 4", lost=4)
        yield Sample(b"", "5", "s#5")

    shard = Shard("s", None, read)
    for start, stop, lost in ((0, 3, 2), (2, 6, 3), (1, 5, 4), (3, 4, 1)):
        (kept,) = sliced([shard], start, stop)
        found = [item for item in kept.read() if not isinstance(item, Remark)]
        assert [item.lost for item in found if isinstance(item, Rejection)] == [lost]
        assert sum(getattr(item, "lost", 1) for item in found) == stop - start == kept.rows


def broken_source(open_source, monkeypatch, items):
    source = open_source("shapes", samples=5)

    def read():
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    monkeypatch.setattr(source, "shards", lambda: [Shard("part-7", None, read)])
    (shard,) = prepared(source)
    return shard.read()


@pytest.mark.parametrize("error", [KeyError("caption"), struct.error("unpack"), OSError(5, "EIO")])
def test_what_ends_a_shard_says_where(open_source, monkeypatch, jpeg, error) -> None:
    read = broken_source(open_source, monkeypatch, [Sample(jpeg(0), "a", "part-7#0"), error])
    next(read)
    with pytest.raises(SandboxError, match="shard part-7, after part-7#0"):
        next(read)


def test_what_is_no_item_says_where(open_source, monkeypatch) -> None:
    with pytest.raises(SandboxError, match=r"shard part-7, at its start: .*not 'text'"):
        next(broken_source(open_source, monkeypatch, ["text"]))


@pytest.mark.parametrize("rows", [[3, 3], [5, 2], [-1, 4], [1]])
def test_rows_that_are_no_range_are_refused(open_source, rows) -> None:
    with pytest.raises(ValidationError):
        open_source("shapes", samples=10, rows=rows)


@given(
    captions=st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 10),
)
def test_shuffling_permutes_and_moves_every_caption_where_it_can(
    captions: list[str], share: float, seed: int
) -> None:
    samples = [Sample(b"", text, str(i), {"k": i}) for i, text in enumerate(captions)]
    count = round(share * len(samples))
    rng = np.random.default_rng(seed)
    result = shuffle_block(samples, count, rng)
    chosen = np.random.default_rng(seed).permutation(len(samples))[:count].tolist()
    assert Counter(item.text for item in result) == Counter(captions)
    assert [item.meta["k"] for item in result] == list(range(len(samples)))
    changed = [i for i, item in enumerate(result) if item.text != captions[i]]
    assert [i for i, item in enumerate(result) if item.meta["shuffled"]] == changed
    assert set(changed) <= set(chosen)
    most = max(Counter(captions[i] for i in chosen).values(), default=0)
    if most <= count / 2:
        assert sorted(changed) == sorted(chosen)


def test_the_fraction_is_exact_in_every_shard(open_source) -> None:
    source = open_source("shapes", samples=1250, shuffle_captions={"fraction": 0.4, "seed": 3})
    for shard, expected in zip(prepared(source), (200, 200, 100), strict=True):
        assert sum(item.meta["shuffled"] for item in shard.read()) == expected


def test_the_fraction_is_exact_over_blocks(open_source, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.prepare.SHUFFLE_BLOCK", 7)
    source = open_source("shapes", samples=500, shuffle_captions={"fraction": 0.35})
    (shard,) = prepared(source)
    assert sum(item.meta["shuffled"] for item in shard.read()) == 175


def test_shuffling_repeats_and_depends_on_the_seed(open_source) -> None:
    def captions(seed: int) -> list[str]:
        options = {"fraction": 0.5, "seed": seed}
        return texts(prepared(open_source("shapes", samples=200, shuffle_captions=options)))

    assert captions(1) == captions(1)
    assert captions(1) != captions(2)


def test_a_bad_sample_hands_its_caption_to_nobody(open_source, write_parquet, pairs) -> None:
    path = write_parquet([*pairs, (b"no image", "orphan"), (pairs[0][0], "")])
    source = open_source("parquet", path=path, shuffle_captions={"fraction": 1.0})
    (shard,) = prepared(source)
    read = list(shard.read())
    samples = [item for item in read if isinstance(item, Sample)]
    assert sorted(item.text for item in samples) == sorted(text for _, text in pairs)
    assert all(item.meta["shuffled"] for item in samples)
    reasons = [item.reason for item in read if isinstance(item, Rejection)]
    assert sorted(reasons) == ["bad_image", "empty_caption"]


LABELS = [0, 1, 2, -1, None, "1", True, 1 << 40]


@pytest.fixture
def labelled(open_source, monkeypatch, jpeg):
    """A source that names two classes under ``label``."""
    source = open_source("shapes", samples=10)
    samples = [
        Sample(jpeg(0), f"caption {row}", f"s#{row}", {"label": label})
        for row, label in enumerate(LABELS)
    ]
    monkeypatch.setattr(source, "shards", lambda: [Shard("s", None, partial(iter, samples))])
    names = {"label": ("cat", "dog")}
    monkeypatch.setattr(source, "class_names", lambda key: names.get(key, ()))
    return source


def test_a_number_without_a_name_is_rejected_where_names_are_asked_for(labelled) -> None:
    """What is no number is for the evaluator to judge: it stops before anything is trained."""
    (shard,) = prepared(labelled, {"label", "other"})
    read = list(shard.read())
    assert [item.meta["label"] for item in read if isinstance(item, Sample)] == [
        *(0, 1, None, "1", True)
    ]
    rejected = [item for item in read if isinstance(item, Rejection)]
    assert [(item.source, item.reason) for item in rejected] == [
        ("s#2", "bad_label"),
        ("s#3", "bad_label"),
        ("s#7", "bad_label"),
    ]
    assert rejected[1].detail == "'label' is -1, but the data names the classes 0 to 1"
    assert named_classes(labelled, {"label", "other"}) == {"label": ("cat", "dog")}


def test_a_number_is_side_data_where_nobody_asks_for_names(labelled) -> None:
    for labels in ((), {"other"}):
        (shard,) = prepared(labelled, labels)
        assert [item.meta["label"] for item in shard.read()] == LABELS
        assert named_classes(labelled, labels) == {}


def test_the_stamp_knows_options_and_content_but_not_the_place(
    open_source, write_parquet, pairs, tmp_path
) -> None:
    path = write_parquet(pairs)
    stamp = open_source("parquet", path=path).stamp()
    assert str(tmp_path) not in str(stamp)
    assert stamp == open_source("parquet", path=path).stamp()
    assert stamp != open_source("parquet", path=path, rows=[0, 5]).stamp()
    write_parquet(pairs[:9])
    assert stamp != open_source("parquet", path=path).stamp()


def test_boilerplate_is_injected_exactly_and_repeats(open_source) -> None:
    def read(seed: int) -> list[list[Sample]]:
        options = {"fraction": 0.3, "seed": seed}
        source = open_source("shapes", samples=600, boilerplate=options)
        return [list(shard.read()) for shard in prepared(source)]

    first = read(1)
    plain = [list(shard.read()) for shard in prepared(open_source("shapes", samples=600))]
    for found, before, expected in zip(first, plain, (150, 30), strict=True):
        hit = [sample.meta["boilerplate"] for sample in found]
        assert sum(hit) == expected
        changed = [new.text != old.text for new, old in zip(found, before, strict=True)]
        assert changed == hit
    assert first == read(1)
    assert first != read(2)


# Which samples can be used


def nested(levels: int) -> dict[str, object]:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return {"deep": value}


def deeper(calls: int, read):
    return deeper(calls - 1, read) if calls else read()


def test_meta_data_that_pass_can_be_read_from_deeper_calls(jpeg) -> None:
    """Else one row would end an export, or the ingest itself."""
    found = [check(Sample(jpeg(0), "a", "s#0", nested(levels))) for levels in range(0, 1000, 20)]
    assert not any(found[:20])
    assert {fault.reason for fault in found if fault} == {"bad_meta"}
    deepest = nested(20 * (found.index(next(filter(None, found))) - 1))
    text = json.dumps(deepest)
    assert deeper(200, lambda: json.dumps(json.loads(text))) == text


@pytest.mark.parametrize("levels", [200, 300, 400, 450, 480, 500, 600, 900])
def test_side_data_however_deep_cost_no_pair(jpeg, levels: int) -> None:
    """Sources leave out what is nested too deeply, before it would be rejected."""
    meta, _ = kept_meta("s#0", lambda: nested(levels))
    assert check(Sample(jpeg(0), "a", "s#0", meta)) is None


def test_a_good_sample_passes(jpeg) -> None:
    assert check(Sample(jpeg(0), "caption", "a#0", {"label": 1})) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": ""}, "empty_caption"),
        ({"text": " \n\u2003"}, "empty_caption"),
        ({"text": "\ufeff\u200b\0\x07"}, "empty_caption"),
        ({"text": None}, "bad_text"),
        ({"text": 7}, "bad_text"),
        ({"text": "half a pair \ud800"}, "bad_text"),
        ({"image": None}, "missing_image"),
        ({"image": b"no image"}, "bad_image"),
        ({"meta": None}, "bad_meta"),
        ({"meta": {"x": float("nan")}}, "bad_meta"),
        ({"meta": {"x": b"bytes"}}, "bad_meta"),
        ({"meta": {"x": "\ud800"}}, "bad_meta"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_a_reason(jpeg, change, reason) -> None:
    good = {"image": jpeg(0), "text": "caption", "source": "a#0", "meta": {}}
    rejection = check(Sample(**(good | change)))
    assert rejection is not None
    assert (rejection.source, rejection.reason) == ("a#0", reason)
    assert rejection.detail


def test_a_truncated_image_is_rejected(jpeg) -> None:
    image = jpeg(0, side=128)
    rejection = check(Sample(image[: len(image) // 2], "caption", "a#0"))
    assert rejection is not None
    assert rejection.reason == "bad_image"
    assert "truncated" in rejection.detail


class TooMuch(dict):
    """Meta data for which there is no room."""

    def items(self):
        raise MemoryError


def test_a_sample_that_memory_is_lacking_for_is_not_set_aside(
    open_source, monkeypatch, jpeg
) -> None:
    """Else the row ids of all that follow, and the dataset's, would depend on the machine."""
    samples = [Sample(jpeg(0), "a", "part-7#0"), Sample(jpeg(1), "b", "part-7#1", TooMuch(x=1))]
    read = broken_source(open_source, monkeypatch, samples)
    next(read)
    with pytest.raises(SandboxError, match="shard part-7, after part-7#0: MemoryError"):
        next(read)


# Samples that wait for others


def test_what_goes_in_comes_out_in_order_and_files_are_given_up(monkeypatch) -> None:
    monkeypatch.setattr(prepare, "FILE_BYTES", 100)
    chance = random.Random(0)
    items = [chance.randbytes(chance.randint(0, 40)) for _ in range(300)]
    with Aside() as queue:
        taken, most = [], 0
        for number, item in enumerate(items):
            queue.append(item)
            most = max(most, len(queue._files))
            if number >= 20:
                taken.append(queue.popleft())
        taken += [queue.popleft() for _ in range(20)]
        with pytest.raises(IndexError):
            queue.popleft()
    assert taken == items
    assert 1 < most < 10


def test_nothing_is_left_open(monkeypatch) -> None:
    monkeypatch.setattr(prepare, "FILE_BYTES", 3)
    with Aside() as queue:
        queue.append(b"one")
        queue.append(b"two")
    assert [file.closed for file in queue._files] == [True, True]


# What is computed of good data stays the same


def dataset_id(source) -> str:
    """Return the id that ingest gives, without Ray."""
    digests = []
    for shard in prepared(source):
        tally = Tally()
        for _ in tally.batches(shard.read()):
            pass
        assert not tally.rejected
        digests.append(tally.digest.digest())
    return content_id("dataset", chain(digests).hex())


def picture(number: int) -> bytes:
    return b"P6 4 3 255\n" + bytes((number * 7 + at * 13) % 256 for at in range(36))


def test_ids_of_datasets_stay_the_same(open_source, write_tar, write_jsonl, tmp_path) -> None:
    texts = [f"caption {number} \u00e9" for number in range(40)]
    for part, (name, mode) in enumerate((("0.tar", "w"), ("1.tar.gz", "w:gz"))):
        members = []
        for number in range(part * 20, part * 20 + 20):
            meta = json.dumps({"label": number, "x": [1, None, 0.5]}).encode()
            content = (picture(number), meta, b"mask", texts[number].encode())
            for end, data in zip(("jpg", "json", "seg.png", "txt"), content, strict=True):
                members.append((f"f/{number:05d}.{end}", data))
        write_tar(members, f"wds/{name}", mode)
    columns = {
        "image": [picture(number) for number in range(40)],
        "text": texts,
        "label": list(range(40)),
        "x": [float("nan") if number % 5 == 0 else number / 2 for number in range(40)],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=7)
    lines = [
        {
            "text": f"<__dj__image> {text} <|__dj__eoc|>",
            "images": [f"i/{number}.ppm"],
            "meta": {"label": number},
            "id": number,
        }
        for number, text in enumerate(texts)
    ]
    jsonl = write_jsonl(lines, {f"i/{number}.ppm": picture(number) for number in range(40)})
    parquet = {"path": str(tmp_path / "a.parquet"), "meta_columns": ["label", "x"]}
    shapes = {
        "samples": 700,
        "seed": 3,
        "defects": {"mismatched": 0.3},
        "shuffle_captions": {"fraction": 0.2},
        "boilerplate": {"fraction": 0.1},
    }
    assert {
        "shapes": dataset_id(open_source("shapes", **shapes)),
        "webdataset": dataset_id(open_source("webdataset", path=str(tmp_path / "wds"))),
        "parquet": dataset_id(open_source("parquet", **parquet)),
        "jsonl": dataset_id(open_source("jsonl", path=jsonl)),
    } == {
        "shapes": "dataset-98c437c0e64c6fef",
        "webdataset": "dataset-ac6db066c7391196",
        "parquet": "dataset-cc8cffc58ae71a91",
        "jsonl": "dataset-298d83185da95748",
    }


# A first look


def listed(*items: object) -> Shard:
    return Shard("s", None, lambda: iter(items))  # type: ignore[arg-type, return-value]


def bad(number: int) -> Rejection:
    return Rejection(f"s#{number}", "bad_json", f"line {number}")


GOOD = Sample(b"", "a text", "s#9")


def test_one_row_that_can_be_used_is_enough() -> None:
    refuse_unusable([listed(bad(0)), listed(Remark("s", "odd rows", ""), bad(1), GOOD)], "texts")


def test_nothing_is_read_behind_it() -> None:
    def read():
        yield GOOD
        raise AssertionError("read on")

    refuse_unusable([Shard("s", None, read)], "texts")


@pytest.mark.parametrize(
    ("count", "rows"), [(1, "its rows"), (7, "its 7 rows"), (2000, "the first 100 rows")]
)
def test_where_none_can_be_used_the_first_one_says_why(count: int, rows: str) -> None:
    said = rf"^none of {rows} can be used: s#0: bad_json: line 0$"
    with pytest.raises(BadInput, match=said):
        refuse_unusable([listed(*map(bad, range(count)))], "texts")


def test_samples_are_looked_at_too() -> None:
    with pytest.raises(BadInput, match="s#9: bad_image"):
        refuse_unusable([listed(Sample(b"no image", "a caption", "s#9"))], "pairs")


def test_a_source_without_rows_is_for_others_to_refuse() -> None:
    refuse_unusable([listed()], "texts")
