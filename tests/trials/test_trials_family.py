"""What the numbers of a training hang on is in its id, and no trial is trained on other numbers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import RayTaskError
from trial_world import Arena, Counter, starts

from djsandbox_ray.errors import BadInput, Damaged, Missing, MissingExtra, StorageFailed
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.command import Command
from djsandbox_ray.trials.family import ModelFamily, OtherNumbers, check_numerics, identity_of
from djsandbox_ray.trials.reporter import Reporter
from djsandbox_ray.trials.trainable import Crashed
from djsandbox_ray.trials.worker import OtherRows, TrialWorker

VERSIONS = {"torch": "2.14.1", "open_clip_torch": "3.3.0"}
Install = Callable[..., None]


class Jax(Counter):
    LIBRARIES = ("jax",)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Give a function that has these versions of packages be installed, and no others."""

    def installed(**versions: str) -> None:
        def version(package: str) -> str:
            if package not in versions:
                raise metadata.PackageNotFoundError(package)
            return versions[package]

        monkeypatch.setattr("djsandbox_ray.trials.family.version", version)

    installed(**VERSIONS)
    return installed


def clip(gpus: float = 0, **settings: Any) -> Clip:
    return Clip(ClipConfig.model_validate({"type": "clip", **settings})).resolved(gpus)


def id_of(family: ModelFamily, gpus: float = 0) -> str:
    return content_id("model", identity_of(family, gpus))


def test_what_the_numbers_of_clip_hang_on(install: Install) -> None:
    libraries = {"torch": "2.14", "open_clip_torch": "3.3"}
    assert clip().numerics(0) == {"device": "cpu", **libraries, "precision": "fp32"}
    assert clip(0.5).numerics(0.5) == {"device": "cuda", **libraries, "precision": "bf16"}
    assert clip(1, precision="fp32").numerics(1)["precision"] == "fp32"


def test_the_versions_are_those_that_are_installed() -> None:
    found = clip().numerics(0)
    for package in Clip.LIBRARIES:
        assert metadata.version(package).startswith(f"{found[package]}.")


@pytest.mark.parametrize(
    ("versions", "same"),
    [
        ({"torch": "2.14.9+cu128"}, True),
        ({"open_clip_torch": "3.3.1.dev0"}, True),
        ({"torch": "2.15.0a0+git1"}, False),
        ({"torch": "3.14.1"}, False),
        ({"open_clip_torch": "3.4.0"}, False),
    ],
)
def test_a_minor_version_is_another_model_and_a_patch_release_is_not(
    install: Install, versions: dict[str, str], same: bool
) -> None:
    before = id_of(clip())
    install(**{**VERSIONS, **versions})
    assert (id_of(clip()) == before) is same


def test_the_device_and_the_precision_are_in_the_id(install: Install) -> None:
    on_cpus, on_gpus = id_of(clip()), id_of(clip(1), 1)
    assert id_of(clip(precision="fp32")) == on_cpus
    assert id_of(clip(1, precision="bf16"), 0.25) == on_gpus, "of a share, too"
    others = [id_of(clip(precision="bf16")), id_of(clip(1, precision="fp32"), 1)]
    assert len({on_cpus, on_gpus, *others}) == 4


@pytest.mark.parametrize(
    "family",
    [
        Counter(),
        Command(
            Command.Config.model_validate(
                {"type": "command", "command": ["x", "{pool}{samples}{seed}{metrics}"]}
            )
        ),
    ],
    ids=["a user's", "command"],
)
def test_without_libraries_the_device_alone_counts(install: Install, family: ModelFamily) -> None:
    install()
    assert family.numerics(0) == {"device": "cpu"}
    bare = identity_of(family, 0)
    assert "numerics" not in bare, "the id on CPUs is that of the family"
    assert identity_of(family, 1) == {"family": bare, "numerics": {"device": "cuda"}}


def test_a_family_names_its_own_libraries(install: Install) -> None:
    install(jax="0.4.35")
    old = id_of(Jax())
    assert Jax().numerics(0) == {"device": "cpu", "jax": "0.4"}
    install(jax="0.5.0")
    assert id_of(Jax()) != old


def test_a_library_that_is_not_installed_is_said(install: Install) -> None:
    install(torch="2.14.1")
    with pytest.raises(BadInput, match="the package 'jax', by whose version trials are known, is"):
        Jax().numerics(0)
    with pytest.raises(MissingExtra, match=r"'open_clip_torch'.*djsandbox-ray\[clip\]"):
        clip().numerics(0)


def test_a_node_with_other_libraries_is_refused(install: Install) -> None:
    promised = clip().numerics(0)
    install(torch="2.14.3+cpu", open_clip_torch="3.3.0")
    check_numerics(clip(), 0, promised)
    install(torch="2.13.0", open_clip_torch="3.2.0")
    said = r"has torch 2\.13 and open_clip_torch 3\.2, the driver torch 2\.14 and open_clip_torch"
    with pytest.raises(OtherNumbers, match=said):
        check_numerics(clip(), 0, promised)
    with pytest.raises(OtherNumbers, match=r"has torch 2\.13 .*, the driver torch unknown and"):
        check_numerics(clip(), 0, {"device": "cpu", "precision": "fp32"})


def test_no_trial_is_trained_on_other_numbers(
    storage: Storage, tmp_path: Path, install: Install
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    arena = Arena(storage)
    (spec,) = arena.specs
    install(jax="0.4.35")
    shared = replace(arena.shared(Jax(checkpoints=False), notes), numerics=Jax().numerics(0))
    trial = {**asdict(spec), "draw": spec.draw_hash, "reports": []}

    def first_step() -> dict[str, Any]:
        worker = TrialWorker(shared)
        worker.begin(trial, 0)
        result = worker.step()
        worker.close()
        return result

    install(jax="0.5.0")
    failure = first_step()["failure"]
    assert not starts(notes)
    assert failure["error"].startswith("OtherNumbers: ")
    assert "has jax 0.5, the driver jax 0.4" in failure["error"]
    install(jax="0.4.36")
    assert first_step()["report"]["samples"] == 10

    # A node that fails at once would be given one trial after the other.
    with pytest.raises(OtherNumbers, match=r"has jax 0\.5, the driver jax 0\.4"):
        _reported(spec, Crashed(**failure), tmp_path)


def _reported(spec: TrialSpec, cause: Exception, folder: Path) -> None:
    """Tell a reporter that a trial crashed for the last time."""
    records: list[TrialRecord] = []
    reporter = Reporter([spec], {}, records.append, lambda waiting: None)
    error = folder / "error.pkl"
    error.write_bytes(cloudpickle.dumps(SimpleNamespace(cause=cause)))
    at = SimpleNamespace(location=SimpleNamespace(hostname="node", pid=1))
    told = SimpleNamespace(
        config={"trial": {"id": spec.id}}, temporary_state=at, pickled_error_file=str(error)
    )
    try:
        reporter.on_trial_error(0, [], told)
    finally:
        assert [record.state for record in records] == [TrialState.FAILED]


@pytest.mark.parametrize("kind", [Damaged, Missing])
def test_a_file_of_all_trials_that_is_damaged_or_gone_ends_the_study(
    storage: Storage, tmp_path: Path, kind: type[Damaged]
) -> None:
    cause = kind("assignments.parquet is not as it was", "run it again", "assignments.parquet")
    with pytest.raises(BadInput, match=r"assignments\.parquet is not as it was; run it again"):
        _reported(Arena(storage).specs[0], cause, tmp_path)


def test_a_storage_that_fails_under_a_trial_ends_the_study(
    storage: Storage, tmp_path: Path
) -> None:
    with pytest.raises(StorageFailed, match="no space is left"):
        _reported(Arena(storage).specs[0], StorageFailed("no space is left"), tmp_path)


def test_rows_that_changed_under_a_study_end_it(storage: Storage, tmp_path: Path) -> None:
    arena = Arena(storage)
    (spec,) = arena.specs
    shared = arena.shared(Counter(checkpoints=False), tmp_path)
    trial = {**asdict(spec), "draw": "of other rows", "reports": []}
    with pytest.raises(OtherRows, match=r"are not those that trial .* was planned with") as caught:
        TrialWorker(shared).begin(trial, 0)
    of_a_rank = RayTaskError("begin", "Traceback ...", caught.value)
    for cause in (caught.value, of_a_rank):
        with pytest.raises(OtherRows, match=r"^.*the same command plans anew$"):
            _reported(spec, cause, tmp_path)


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"),
        Crashed(
            "OSError: [Errno 28] No space left on device: '/tmp/x'", "", False, "node a (pid 1)"
        ),
        Crashed("RuntimeError: write: Disk quota exceeded", "", False, None),
    ],
)
def test_a_full_disk_of_a_node_ends_the_study(
    storage: Storage, tmp_path: Path, cause: Exception
) -> None:
    said = r"^a disk of .*node.* takes nothing more: .*; what is finished is kept"
    with pytest.raises(StorageFailed, match=said):
        _reported(Arena(storage).specs[0], cause, tmp_path)


def test_another_crash_is_that_of_one_trial(storage: Storage, tmp_path: Path) -> None:
    (spec,) = Arena(storage).specs
    _reported(spec, RuntimeError("odd"), tmp_path)
    _reported(spec, BadInput("row 7: file too large"), tmp_path)
