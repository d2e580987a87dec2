"""A batch that is larger than what it is drawn from is refused before anything is trained."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import minimal_document, pool, pools
from rich.console import Console

from djsandbox_ray.config import checked
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.combine import CombinePools
from djsandbox_ray.hooks.conduct import Conduct
from djsandbox_ray.hooks.study import Inputs, Study
from djsandbox_ray.records import Dataset, Evaluation, StudyPlan
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.workflows.beforehand import check_run
from djsandbox_ray.workflows.opened import open_context


def config(batch: int, **changes: Any) -> Any:
    model = {"type": "clip", "batch_size": batch}
    return checked(minimal_document(trials__model=model, trials__budget=1000, **changes), "test")


def table(path: Path, rows: int) -> dict[str, Any]:
    pq.write_table(pa.table({"image": [b"P6 1 1 255\n\0\0\0"] * rows, "text": ["x"] * rows}), path)
    return {"type": "parquet", "path": str(path)}


def test_the_smallest_draw_of_clip_is_a_batch() -> None:
    family = FAMILIES.get("clip")(config(64).trials.model)
    assert (family.least_rows(1000), family.least_rows(40)) == (64, 40)


@pytest.mark.parametrize("form", ["shapes", "parquet"])
def test_a_draw_that_cannot_fill_a_batch_is_refused(tmp_path: Path, form: str) -> None:
    """Of 300 rows, a third is a bucket, and half of that a draw: 50."""
    source = table(tmp_path / "a.parquet", 300)
    dataset = source if form == "parquet" else {"type": "shapes", "samples": 300}
    check_run(config(50, dataset=dataset))
    with pytest.raises(BadInput) as error:
        check_run(config(51, dataset=dataset))
    assert "trials.model: a batch holds 51 rows, but a trial draws 50" in str(error.value)
    assert "a batch_size of at most 50" in str(error.value)
    with pytest.raises(BadInput, match="a trial draws 25"):
        check_run(config(26, dataset={**dataset, "rows": [100, 250]}))
    check_run(config(51, dataset=dataset, pools__draw_share=0.6))
    check_run(config(51, dataset=dataset, pools__buckets=2))


def test_a_size_that_is_given_counts() -> None:
    with pytest.raises(BadInput, match=r"a trial draws 30 .* of pools.size rows"):
        check_run(config(31, dataset={"type": "shapes", "samples": 9000}, pools__size=60))


def test_where_nothing_is_trained_nothing_is_refused() -> None:
    jobs = {"jobs": [{"id": "dataset", "hook": "ingest"}]}
    check_run(config(99, dataset={"type": "shapes", "samples": 10}, workflow=jobs))


def test_the_scorer_needs_a_batch_too() -> None:
    data = {"type": "shapes", "samples": 40}
    scorer = {"dataset": data, "model": {"type": "clip", "batch_size": 41}, "budget": 640}
    with pytest.raises(BadInput, match=r"scorer.model: a batch holds 41 rows.*40 trusted pairs"):
        check_run(config(8, scorer=scorer, dataset={"type": "shapes", "samples": 300}))
    check_run(config(8, scorer={**scorer, "budget": 40}))


def study(batch: int, tmp_path: Path, **changes: Any) -> Study:
    storage = {"storage": str(tmp_path), "tracking": {"type": "none"}}
    context = open_context(config(batch, **storage), Progress(Console(file=io.StringIO())))
    dataset = Dataset("dataset-1", "table", 600, 0)
    made = pools(["control/0", pool("text_len/low", **changes)])
    return Study(
        context,
        StudyPlan("trials", (0, 1)),
        Inputs(dataset, Evaluation(dataset.id, (dataset,), (dataset.id,)), made),
    )


def test_pools_that_turn_out_smaller_are_refused_before_their_study(tmp_path: Path) -> None:
    study(50, tmp_path).check()
    with pytest.raises(BadInput, match=r"a trial of 'control/0' draws 50 of 100 rows"):
        Conduct(study(51, tmp_path)).run()
    with pytest.raises(BadInput, match=r"a trial of 'text_len/low' draws 20 of 100 rows"):
        Conduct(study(50, tmp_path, draw_size=20)).run()


def test_combinations_that_cannot_fill_a_batch_are_dropped(tmp_path: Path) -> None:
    hook = CombinePools(study(50, tmp_path).context)
    assert hook._least == 100  # of which a draw has half
