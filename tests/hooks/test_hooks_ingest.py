"""What is said of data that are read or passed over, and whose names trusted classes have.

Shards are read in this process, without Ray.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import read_events
from PIL import Image
from planted_world import context_of

from djsandbox_ray.dataset.complete import told_of
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.ingest import Ingest, IngestEvaluation, Leaks
from djsandbox_ray.hooks.scorer import TrainScorer
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.trials.clip.scorer import ScorerConfig

pytestmark = pytest.mark.usefixtures("read_here")

NAMES = ("red", "green", "blue", "pink", "grey", "black")
Make = Callable[..., tuple[Any, io.StringIO]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), shade).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    labels: list[int],
    names: tuple[str, ...] | None = NAMES,
    shades: Sequence[int] | None = None,
) -> None:
    """Write a file as ``datasets.to_parquet`` does: numbers, and their names in the schema.

    Args:
        path: the file.
        labels: of the rows.
        names: of the labels.
        shades: of the pictures; by default each has its own.
    """
    columns = {
        "image": [*map(picture, shades or range(len(labels)))],
        "text": [f"{path.stem} {row}" for row in range(len(labels))],
        "label": labels,
    }
    table = pa.table(columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path)


@pytest.fixture
def make(storage: Storage, data: Path) -> Make:
    """Return the context of a run on the files of a folder, and what it says."""

    def build(*, rejected: float = 0.0, **zero_shot: Any) -> tuple[Any, io.StringIO]:
        metric = {"type": "zero_shot", "label": "label", "templates": ["{}"], **zero_shot}
        source = {"type": "parquet", "path": str(data), "meta_columns": ["label"]}
        return context_of(
            storage,
            dataset=source,
            ingest={"max_rejected": rejected},
            evaluation={"dataset": source, "metrics": [metric]},
        )

    return build


def labels_of(storage: Storage, dataset: Dataset) -> list[int]:
    found = SampleTable(storage.uri(dataset.table)).column("meta").to_pylist()
    return [json.loads(meta)["label"] for meta in found]


def test_the_data_itself_names_its_classes(make: Make, storage: Storage, data: Path) -> None:
    write(data / "a.parquet", [0, 5, 3, 0])
    context, said = make()
    (dataset,) = IngestEvaluation(context).run().sets
    assert dataset.classes == {"label": NAMES}
    assert labels_of(storage, dataset) == [0, 5, 3, 0], "numbers stay what they are"
    told = "the data itself names the 6 classes of 'label': red, green, blue, pink, grey, ..."
    assert f"ingest evaluation: {told}" in said.getvalue()
    (again,) = IngestEvaluation(context).run().sets
    assert again == dataset


def test_other_names_are_another_split(make: Make, data: Path) -> None:
    """Trials are known by the id of the split, and their metrics depend on the names."""
    found = []
    for names in (NAMES, NAMES[::-1]):
        write(data / "a.parquet", [0, 5, 3, 0], names)
        found.append(IngestEvaluation(make()[0]).run().id)
    assert found[0] != found[1]


def test_the_configuration_wins(make: Make, storage: Storage, data: Path) -> None:
    """Files that contradict each other and numbers beyond the names are no matter then."""
    write(data / "a.parquet", [0, 1, -1])
    write(data / "b.parquet", [0, 1, 1], NAMES[::-1])
    write(data / "c.parquet", [0, 1, 1], None)
    context, said = make(classes={0: "cat", 1: "dog", -1: "none"})
    (dataset,) = IngestEvaluation(context).run().sets
    assert dataset.classes == {}
    assert labels_of(storage, dataset) == [0, 1, -1, 0, 1, 1, 0, 1, 1]
    assert "the data itself" not in said.getvalue()


def test_a_number_without_a_name_is_a_rejection_that_names_the_row(
    make: Make, storage: Storage, data: Path
) -> None:
    write(data / "a.parquet", [0, 1, 6, -1, 2])
    with pytest.raises(BadInput, match=r"2 bad_label; first: a\.parquet#2: 'label' is 6, but"):
        IngestEvaluation(make()[0]).run()
    context, said = make(rejected=0.5)
    (dataset,) = IngestEvaluation(context).run().sets
    assert (dataset.rows, dataset.rejected) == (3, 2)
    assert told_of(storage, dataset)["reasons"] == {"bad_label": 2}
    assert "3 samples, 2 rejected (2 bad_label; first: a.parquet#2: 'label' is" in said.getvalue()


def test_no_row_of_the_data_in_question_is_lost_for_its_label(make: Make, data: Path) -> None:
    write(data / "a.parquet", [0, 1, 6, -1, 2])
    write(data / "b.parquet", [0], NAMES[::-1])
    dataset = Ingest(make()[0]).run()
    assert (dataset.rows, dataset.rejected, dataset.classes) == (6, 0, {})


def test_what_is_set_aside_is_said_with_an_example(
    make: Make, storage: Storage, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever is read: the data in question, the trusted split, what the scorer learns from."""
    write(data / "a.parquet", [0, 1, 2, 3])
    table = pq.read_table(data / "a.parquet")
    images = [b"junk", *table["image"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "image", [images]), data / "a.parquet")
    context, said = make(rejected=0.5)
    there = "djsandbox_ray.trials.shared_folder.SharedFolder.broken"
    monkeypatch.setattr(there, lambda _: {})
    scorer = {"dataset": context.config.dataset, "budget": 8, "model": {"type": "clip"}}
    scorer["model"] |= {"arch": "tiny", "batch_size": 2}
    config = context.config.model_copy(update={"scorer": ScorerConfig.model_validate(scorer)})
    for hook in (Ingest, IngestEvaluation, TrainScorer):
        hook(replace(context, config=config)).run()
    example = "3 samples, 1 rejected (1 bad_image; first: a.parquet#0: not an image of a known"
    for stage in ("ingest", "ingest evaluation", "scorer"):
        assert f"{stage}: {example}" in said.getvalue()


def test_files_that_disagree_are_both_named(make: Make, storage: Storage, data: Path) -> None:
    write(data / "a.parquet", [0, 1])
    write(data / "b.parquet", [0, 1], ("red", "blue"))
    with pytest.raises(BadInput, match=r"a\.parquet calls .* 1 'green', b\.parquet 'blue'"):
        IngestEvaluation(make()[0]).run()
    assert storage.names("datasets") == []


def test_numbers_that_nobody_names_are_the_error_they_were(make: Make, data: Path) -> None:
    write(data / "a.parquet", [0, 1], None)
    with pytest.raises(BadInput, match="Give their names as 'classes'"):
        IngestEvaluation(make()[0]).run()


def test_leaks_are_told_by_kind_and_lost_digests_are_made_again(
    storage: Storage, tmp_path: Path
) -> None:
    sources = []
    for name, labels in (("train", [0, 1, 2, 3]), ("asked", [0, 1])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.parquet", labels)
        write(tmp_path / name / f"{name}.parquet", labels)
        sources.append({"type": "parquet", "path": str(tmp_path / name)})
    data, asked = sources
    metrics = [{"type": "planted_world:Measure"}]
    context, said = context_of(
        storage, dataset=data, evaluation={"dataset": asked, "metrics": metrics}
    )
    dataset, evaluation = Ingest(context).run(), IngestEvaluation(context).run()
    hook = Leaks(context)
    leak = hook.run(dataset, evaluation)
    assert (leak.rows, leak.by_medium) == (4, 2)
    told = "4 training rows occur in the evaluation split too (2 only by an image or video); kept"
    assert f"leaks: {told} out of every pool" in said.getvalue()
    assert hook.broken(leak) == {}
    assert "for their digests" not in said.getvalue()
    storage.remove(f"datasets/{dataset.id}/media_digests.parquet")
    assert Leaks(context).run(dataset, evaluation) == leak
    assert f"leaks: reads the images and videos of {dataset.table}" in said.getvalue()


def test_a_picture_that_stands_for_missing_ones_is_told(storage: Storage, tmp_path: Path) -> None:
    """All rows with it are leaks by it: a user who sees but their number would look for copies."""
    sources = []
    for name, shades in (("train", [0, 0, 0, 1, 2, 3]), ("asked", [4, 0])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"{name}.parquet", [0] * len(shades), shades=shades)
        sources.append({"type": "parquet", "path": str(tmp_path / name)})
    data, asked = sources
    evaluation = {"dataset": asked, "metrics": [{"type": "planted_world:Measure"}]}
    context, said = context_of(storage, dataset=data, evaluation=evaluation)
    Leaks(context).run(Ingest(context).run(), IngestEvaluation(context).run())
    notes = " ".join(said.getvalue().split())
    assert "leaks: 3 training rows occur in the evaluation split too (3 only by an" in notes
    assert (
        "leaks: one image is in 3 of 6 training rows (50.0 %; the first is 0) and in the "
        "evaluation row 1: by it alone they are all leaks, whatever the captions"
    ) in notes
    assert "more media" not in notes


def test_what_is_passed_over_is_said_and_an_event(storage: Storage, data: Path) -> None:
    (data / ".ipynb_checkpoints").mkdir()
    (data / "train.jsonl").write_text('{"text": "a", "images": ["a.jpg"]}\n')
    (data / "._train.jsonl").write_text("")
    context, said = context_of(storage, dataset={"type": "jsonl", "path": str(data)})
    source = SOURCES.get("jsonl")(context.config.dataset)
    source.stamp()
    with EventLog(storage, "planted"):
        Ingest(context).tell_found(source, "ingest")
    assert "ingest: passed over: 2 hidden" in said.getvalue()
    (found,) = [e for e in read_events(storage, "planted") if e["event"] == "files_passed_over"]
    assert found["details"] == {
        "counts": {"hidden": 2},
        "names": {"hidden": ["._train.jsonl", ".ipynb_checkpoints/"]},
    }


def test_columns_that_were_found_are_said(storage: Storage, data: Path) -> None:
    (data / "list.csv").write_text("Caption,image_path\n")
    context, said = context_of(storage, dataset={"type": "csv", "path": str(data)})
    source = SOURCES.get("csv")(context.config.dataset)
    source.stamp()
    Ingest(context).tell_found(source, "ingest")
    assert "ingest: captions from the column 'Caption', images from 'image_path'" in said.getvalue()
