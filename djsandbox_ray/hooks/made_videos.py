"""Which videos does the report show of those that the models of a study made?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from djsandbox_ray.config import RunConfig
from djsandbox_ray.evaluation.answer_store import AnswerStore
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator
from djsandbox_ray.evaluation.video.stored_videos import StoredVideos
from djsandbox_ray.evaluation.video.wanted import WantedVideo
from djsandbox_ray.hooks.results import video_evaluators
from djsandbox_ray.records import Evaluation, TrialRecord
from djsandbox_ray.reporting.made import Made
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.trial_records import TrialStore


def videos_made(
    config: RunConfig,
    storage: Storage,
    evaluation: Evaluation,
    records: Sequence[TrialRecord],
    pools: Mapping[str, str],
) -> list[Made]:
    """Return the videos that have stayed of some pools' models, each of its first trained seed.

    Args:
        config: of the run.
        storage: with the videos.
        evaluation: what models were measured on.
        records: of the study's trials.
        pools: of which videos are wanted, with what each is called.
    """
    first: dict[str, TrialRecord] = {}
    for record in sorted(records, key=lambda record: record.spec.seed):
        if record.final is not None:
            first.setdefault(record.spec.pool, record)
    looked = [
        (evaluator, [one for one in wanted if one.key in stay])
        for evaluator, data in video_evaluators(config, storage, evaluation)
        for wanted in [evaluator.wanted(data)]
        for stay in [evaluator.staying({one.key for one in wanted})]
    ]
    return [
        Made(title, videos)
        for pool, title in pools.items()
        if pool in first
        for videos in [_of_trial(storage, first[pool], looked)]
        if videos
    ]


def _of_trial(
    storage: Storage,
    record: TrialRecord,
    looked: Sequence[tuple[VideoEvaluator, Sequence[WantedVideo]]],
) -> dict[str, bytes]:
    """Return the videos of a trial that have stayed, one of each prompt."""
    training = TrialStore(storage).training(record.spec.id)  # tables do not have it
    if training is None or record.final is None:
        return {}
    store = AnswerStore(storage, training, record.final.samples)
    found: dict[str, bytes] = {}
    for evaluator, wanted in looked:
        videos = StoredVideos(store, evaluator.config.sampling, evaluator.ASKING)
        for one, data in videos.there(wanted):
            found.setdefault(one.prompt, data)
    return found
