"""The whole stage on a Ray cluster: columns, cache, resume, bad rows, errors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from chat_server import Reply, chat_server
from conftest_stats import captions, pictures
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats import parts, unfinished
from djsandbox_ray.stats.compute import StatisticsConfig, compute_statistics
from djsandbox_ray.stats.endpoint import EndpointConfig
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import OperatorSpec, operator_id
from djsandbox_ray.stats.parts import StatisticColumns, load_column
from djsandbox_ray.storage.store import Storage

ROWS = 1500  # one range of text, three of 512 rows at most where images are read
pytestmark = pytest.mark.usefixtures("ray_cluster")


class Counter:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))

    @property
    def rows(self) -> int:
        return self.calls[-1][0] if self.calls else 0


def ingest(storage: Storage, texts: list[str], images: list[bytes]) -> Dataset:
    dataset = Dataset("data-test", "datasets/data-test/samples.lance", len(texts), 0)
    table = pa.table({"row_id": np.arange(len(texts)), "text": texts, "image": images})
    lance.write_dataset(table, storage.uri(dataset.table), max_rows_per_file=999)
    return dataset


@pytest.fixture
def dataset(storage: Storage) -> Dataset:
    return ingest(storage, captions(ROWS), (pictures(50) * ROWS)[:ROWS])


TEXT = [
    OperatorSpec("text_length_filter"),
    OperatorSpec("word_repetition_filter", {"rep_len": 2}),
    OperatorSpec("word_repetition_filter", {"rep_len": 3}),
]

SHAPE = OperatorSpec("image_shape_filter")


def modified(storage: Storage) -> dict[str, int]:
    root = Path(storage.uri("datasets"))
    return {str(p): p.stat().st_mtime_ns for p in root.rglob("part-*.parquet")}


def test_columns_are_those_of_the_operators_in_row_order(
    storage: Storage, dataset: Dataset, clip_folder: Path
) -> None:
    operators = [
        *TEXT,
        OperatorSpec("image_shape_filter"),
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)}),
    ]
    counter = Counter()
    done = compute_statistics(
        storage, dataset, operators, settings=StatisticsConfig(actors=2), progress=counter
    )
    columns = StatisticColumns(storage, done.statistics, dataset.rows)
    assert list(columns) == [
        "text_len",
        "word_rep_ratio[rep_len=2]",
        "word_rep_ratio[rep_len=3]",
        "image_height",
        "image_width",
        "image_text_similarity",
    ]
    assert counter.calls[-1] == (ROWS, ROWS)
    some = slice(1000, 1060)  # across the border of two ranges
    texts, images = captions(ROWS)[some], (pictures(50) * ROWS)[some]
    here = FusedOperators(operators)(texts, images, range(len(operators)))
    expected = [column for computed in here for _, column in sorted(computed.columns.items())]
    for (name, column), values in zip(columns.items(), expected, strict=True):
        assert column.dtype == np.float64
        assert np.isfinite(column).all()
        np.testing.assert_allclose(column[some], values, rtol=0, atol=1e-6, err_msg=name)
    marker = storage.read_json(parts.marker(dataset.id, operator_id(operators[-1])))
    assert marker["rows"] == ROWS
    assert marker["missing"] == {"image_text_similarity": 0}
    assert marker["failed"] == 0
    assert marker["seconds"] > 0


def test_a_second_run_computes_nothing_and_a_new_operator_only_itself(
    storage: Storage, dataset: Dataset
) -> None:
    first = compute_statistics(storage, dataset, TEXT)
    before = modified(storage)
    assert len(before) == 3
    counter = Counter()
    assert compute_statistics(storage, dataset, TEXT, progress=counter) == first
    assert counter.calls == []
    stricter = [OperatorSpec("text_length_filter", {"min_len": 7}), *TEXT[1:]]
    assert compute_statistics(storage, dataset, stricter, progress=counter) == first
    assert counter.calls == []
    more = compute_statistics(
        storage, dataset, [*TEXT, OperatorSpec("words_num_filter")], progress=counter
    )
    assert counter.rows == ROWS
    after = modified(storage)
    assert len(after) == 4
    assert {path: after[path] for path in before} == before
    assert more.id != first.id


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_parts_it_lacks(
    storage: Storage, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "PART_ROWS", 1)  # every range is a part
    first = compute_statistics(storage, dataset, [*TEXT, SHAPE])
    columns = [load_column(storage, statistic, ROWS) for statistic in first.statistics]
    length, repetition = first.statistics[:2]
    storage.remove(parts.marker(dataset.id, length.operator_id))
    storage.remove(parts.marker(dataset.id, repetition.operator_id))
    storage.remove(parts.part(repetition.path, 512))
    before = modified(storage)
    counter = Counter()
    assert compute_statistics(storage, dataset, [*TEXT, SHAPE], progress=counter) == first
    assert counter.calls == [(512, 512)]
    after = modified(storage)
    assert {path: after[path] for path in before} == before
    for statistic, column in zip(first.statistics, columns, strict=True):
        np.testing.assert_array_equal(load_column(storage, statistic, ROWS), column)
    assert storage.read_json(parts.marker(dataset.id, repetition.operator_id))["rows"] == ROWS


def test_rows_that_fail_are_counted_with_their_reason(storage: Storage) -> None:
    images = pictures(20)
    images[7] = images[12] = b"broken"
    dataset = ingest(storage, captions(20), images)
    shape = OperatorSpec("image_aspect_ratio_filter")
    done = compute_statistics(storage, dataset, [shape])
    column = load_column(storage, done.statistics[0], dataset.rows)
    assert np.flatnonzero(np.isnan(column)).tolist() == [7, 12]
    marker = storage.read_json(parts.marker(dataset.id, operator_id(shape)))
    assert marker["missing"] == {"aspect_ratios": 2}
    assert marker["failed"] == 2
    assert [failure["row_id"] for failure in marker["failures"]] == [7, 12]
    assert "UnidentifiedImageError" in marker["failures"][0]["reason"]


def test_an_operator_that_fails_everywhere_is_an_error_and_the_others_are_kept(
    storage: Storage,
) -> None:
    dataset = ingest(storage, captions(20), [b"broken"] * 20)
    operators = [OperatorSpec("image_shape_filter"), OperatorSpec("text_length_filter")]
    with pytest.raises(SandboxError, match="image_shape_filter failed on every row, first: Unid"):
        compute_statistics(storage, dataset, operators)
    assert not storage.exists(parts.marker(dataset.id, operator_id(operators[0])))
    assert not storage.exists(parts.folder(dataset.id, operator_id(operators[0])))
    assert storage.exists(parts.marker(dataset.id, operator_id(operators[1])))


def test_what_an_operator_lacks_is_an_error_before_the_pass(
    storage: Storage, dataset: Dataset
) -> None:
    lacking = OperatorSpec("image_text_similarity_filter", {"hf_clip": "/no/such/folder"})
    with pytest.raises(
        BadInput, match=r"operators\[1\].image_text_similarity_filter: needs hf_clip"
    ):
        compute_statistics(storage, dataset, [TEXT[0], lacking])


def test_an_error_inside_an_actor_reaches_the_user_in_its_own_words(
    storage: Storage, dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    broken = OperatorSpec("token_num_filter", {"hf_tokenizer": str(tmp_path / "empty")})
    with pytest.raises(BadInput, match=r"^token_num_filter cannot"):
        compute_statistics(storage, dataset, [broken])


def test_more_actors_than_the_cluster_holds_is_an_error(storage: Storage, dataset: Dataset) -> None:
    settings = StatisticsConfig(actors=50)
    with pytest.raises(BadInput, match=r"statistics asks for 50 x \(0.5 CPUs\)"):
        compute_statistics(storage, dataset, TEXT, settings=settings)


@pytest.mark.parametrize(
    "wrong", [{"actors": 0}, {"actors": "many"}, {"cpus_per_actor": 0}, {"workers": 2}]
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StatisticsConfig(**wrong)  # type: ignore[arg-type]


def test_columns_changed_by_hand_are_refused(
    storage: Storage, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "PART_ROWS", 1)  # every range is a part
    done = compute_statistics(storage, dataset, [TEXT[0], SHAPE])
    statistic = done.statistics[0]
    columns = StatisticColumns(storage, done.statistics, ROWS)
    with pytest.raises(KeyError):
        columns["no such statistic"]
    storage.remove(parts.part(statistic.path, 1024))
    with pytest.raises(Damaged, match=r"does not hold the rows 0 to 1499; remove it and run"):
        columns["text_len"]
    storage.remove(parts.part(statistic.path, 0))
    with pytest.raises(SandboxError, match="does not hold the rows"):
        load_column(storage, statistic, ROWS)
    shifted = pa.table({"row_id": np.arange(0, 1024, 2), statistic.key: np.zeros(512)})
    storage.write_table(parts.part(statistic.path, 0), shifted)
    with pytest.raises(
        SandboxError, match=r"part-000000000000\.parquet is damaged: its row ids are not"
    ):
        load_column(storage, statistic, ROWS)


@pytest.mark.parametrize("rows", [0, 1, 512, 513, 10_000_000])
def test_ranges_cover_every_row_once(rows: int) -> None:
    found = list(parts.ranges(rows))
    assert sum(stop - start for start, stop in found) == rows
    assert all(first[1] == second[0] for first, second in pairwise(found))
    assert len(found) <= 2048


@pytest.mark.slow
def test_an_endpoint_is_asked_by_one_actor_and_the_answers_are_kept(storage: Storage) -> None:
    texts = captions(40)
    dataset = ingest(storage, texts, (pictures(1) * 40)[:40])
    score = OperatorSpec("llm_quality_score_filter")
    with chat_server() as server:
        settings = StatisticsConfig(
            endpoint=EndpointConfig(url=server.url, key_variable=None, budget_tokens=10**6)
        )
        server.trouble = lambda text, _before: Reply(content="?") if text == texts[3] else None
        done = compute_statistics(storage, dataset, [*TEXT, score], settings=settings)
        asked = server.asked.total()
        assert asked == len(set(texts)) + 2, "twice more about the one that cannot be read"
        storage.remove(done.statistics[-1].path)
        compute_statistics(storage, dataset, [score], settings=settings)
        assert server.asked.total() == asked, "lost columns are made again of what was paid for"
    column = load_column(storage, done.statistics[-1], dataset.rows)
    assert np.isnan(column).tolist() == [text == texts[3] for text in texts]
    marker = storage.read_json(parts.marker(dataset.id, operator_id(score)))
    assert marker["failed"] == texts.count(texts[3])
    assert "no answer could be read" in marker["failures"][0]["reason"]
