"""All evaluators of a run, each on its set, and which of their metrics make the score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.answer_evaluator import AnswerEvaluator
from djsandbox_ray.evaluation.answer_store import AnswerStore
from djsandbox_ray.evaluation.asking import Answerer, Asked
from djsandbox_ray.evaluation.caption_nll import CaptionNll
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import Denoiser, DenoisingEvaluator
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Artefact, Asker, Encoder, Reads, Saved
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator
from djsandbox_ray.evaluation.video.stored_videos import StoredVideos
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, VideoMaker
from djsandbox_ray.identity import content_id
from djsandbox_ray.settings.code import version_of
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.own import temporary


class NotFinite(SandboxError):
    """A model's embeddings or metrics are no numbers any more: it has diverged."""


class Suite:
    """Runs the configured evaluators on one model.

    Args:
        configs: the evaluators' configurations, in order.
        sets: what each is measured on, in the same order.
        score: the metrics that make the score of a trial; None for all.

    Raises:
        BadInput: an evaluator cannot run on its set.
    """

    def __init__(
        self,
        configs: Sequence[Component],
        sets: Sequence[EvaluationSet],
        score: Sequence[str] | None = None,
    ) -> None:
        self._score = score or ()
        self._configs = tuple(configs)
        evaluators = [EVALUATORS.get(config.type)(config) for config in configs]
        self._measured = list(zip(evaluators, sets, strict=True))
        for evaluator, data in self._measured:
            evaluator.check(data)
        # Made on the driver, after which trials are named, and sent to workers as it is.
        self._asking = [
            _asking_id(evaluator, data) if isinstance(evaluator, Asker) else ""
            for evaluator, data in self._measured
        ]

    def identity(self) -> list[Any]:
        """Return plain data that two suites share only if trials need no other training or asking.

        Of what is asked, it holds the questions; of the others, all that decides their numbers.
        """
        trusted = {data.id for evaluator, data in self._measured if evaluator.source() is None}
        settings: list[Any] = []
        versions: list[Any] = []
        for (evaluator, data), asking in zip(self._measured, self._asking, strict=True):
            own = evaluator.source() is not None
            if asking:
                settings.append({"asking": asking})
                versions.append(None)
            else:
                identity = evaluator.identity()
                settings.append({"data": data.id, "identity": identity} if own else identity)
                versions.append(version_of(type(evaluator)))
        return [next(iter(trusted), None) or None, settings, versions]

    @property
    def scored(self) -> str:
        """What decides how answers and videos are scored; empty where nothing is asked.

        Reports of one :meth:`identity` that were scored in another way are scored again.
        """
        if not self.asks:
            return ""
        return content_id(
            "scored",
            [
                [evaluator.identity(), version_of(type(evaluator)), data.id]
                for evaluator, data in self._measured
                if isinstance(evaluator, Asker)
            ],
        )

    @property
    def asks(self) -> bool:
        """Whether some evaluator asks models for answers or videos, which are stored."""
        return any(isinstance(evaluator, Asker) for evaluator, _ in self._measured)

    @property
    def reads(self) -> frozenset[Reads]:
        """What evaluators look at of a model."""
        return frozenset(evaluator.READS for evaluator, _ in self._measured)

    def asked(self) -> list[Asked]:
        """Return the questions that every model is asked; what hangs on its answers lacks."""
        return [
            one
            for evaluator, data in self._measured
            if isinstance(evaluator, AnswerEvaluator)
            for one in evaluator.ask(data, {})
        ]

    def pictured(self) -> dict[str, NDArray[np.int64]]:
        """Return whose images models look at to answer, or to say how likely a caption is.

        Rows, rising, by the ids of their sets; those lack that only answers lead to.
        """
        found: dict[str, set[int]] = {}
        for evaluator, data in self._measured:
            if isinstance(evaluator, AnswerEvaluator):
                rows = [one.row for one in evaluator.ask(data, {})]
            elif isinstance(evaluator, CaptionNll):
                rows = evaluator.rows(data)
            else:
                continue
            found.setdefault(data.id, set()).update(rows)
        return {name: np.array(sorted(rows), np.int64) for name, rows in found.items()}

    def weighed(self) -> int:
        """Return of how many captions models say how likely they are."""
        return sum(
            len(evaluator.rows(data))
            for evaluator, data in self._measured
            if isinstance(evaluator, CaptionNll)
        )

    def denoisings(self) -> int:
        """Return how often models denoise a clip: with every caption, and at every time, anew."""
        return sum(
            len(evaluator.rows(data)) * evaluator.CAPTIONS * len(evaluator.config.times)
            for evaluator, data in self._measured
            if isinstance(evaluator, DenoisingEvaluator)
        )

    def made(self) -> list[tuple[SamplingConfig, int]]:
        """Return how models make videos, and how many so: those that evaluators share once."""
        found: dict[str, tuple[SamplingConfig, set[str]]] = {}
        for evaluator, data in self._measured:
            if isinstance(evaluator, VideoEvaluator):
                sampling = evaluator.config.sampling
                _, keys = found.setdefault(sampling.model_dump_json(), (sampling, set()))
                keys |= {one.key for one in evaluator.wanted(data)}
        return [(sampling, len(keys)) for sampling, keys in found.values()]

    def denoised(self) -> dict[str, NDArray[np.int64]]:
        """Return whose videos models are to denoise: rows, rising, by the ids of their sets."""
        found: dict[str, set[int]] = {}
        for evaluator, data in self._measured:
            if isinstance(evaluator, DenoisingEvaluator):
                found.setdefault(data.id, set()).update(evaluator.rows(data))
        return {name: np.array(sorted(rows), np.int64) for name, rows in found.items()}

    def told(self) -> list[str]:
        """Return what models are told of videos: captions of those sets, prompts; each once."""
        texts: list[str] = []
        for evaluator, data in self._measured:
            if isinstance(evaluator, DenoisingEvaluator):
                texts += data.texts
            elif isinstance(evaluator, VideoEvaluator):
                texts += [one.prompt for one in evaluator.wanted(data)]
        return list(dict.fromkeys(texts))

    def samplings(self) -> list[SamplingConfig]:
        """Return how videos are to be made."""
        return [
            evaluator.config.sampling
            for evaluator, _ in self._measured
            if isinstance(evaluator, VideoEvaluator)
        ]

    def run(
        self,
        model: Encoder | Artefact | Answerer | VideoMaker | Denoiser,
        store: AnswerStore | None = None,
    ) -> dict[str, float]:
        """Return all metrics of the model; one that is needed as files is saved for that, once.

        Args:
            model: a trained one.
            store: of its answers, and of its videos; needed where it is asked.

        Raises:
            BadInput: an evaluator reads what the model does not offer, two evaluators give a metric
                of the same name, or none gives one of the score.
            NotFinite: an embedding or a metric is not.
        """
        metrics: dict[str, float] = {}
        files: Artefact | None = None
        watched: list[tuple[StoredVideos, set[str]]] = []
        stay: set[str] = set()
        with ExitStack() as stack:
            each = zip(self._measured, self._configs, self._asking, strict=True)
            for (evaluator, data), config, asking in each:
                if evaluator.READS == "embeddings":
                    seen: Any = _finite(model, config.type)
                elif isinstance(evaluator, AnswerEvaluator):
                    answerer = _answerer(model, config.type)
                    seen = _stored(store, config.type).of(asking, answerer)
                elif isinstance(evaluator, VideoEvaluator):
                    maker = _maker(model, config.type)
                    seen = _videos(evaluator, _stored(store, config.type), maker)
                    keys = {one.key for one in evaluator.wanted(data)}
                    watched.append((seen, keys))
                    stay |= evaluator.staying(keys)
                elif evaluator.READS in ("files", "reports"):
                    files = files or _as_files(model, config.type, stack)
                    seen = files
                else:
                    seen = model
                _add(metrics, evaluator.evaluate(seen, data))
        for videos, keys in watched:  # when nobody looks at any of them any more
            videos.drop(keys - stay)
        self._check_score(metrics)
        return metrics

    def rescored(self, metrics: Mapping[str, float], store: AnswerStore) -> dict[str, float]:
        """Return the metrics of a report, with what the model has made scored as it is now.

        Args:
            metrics: as they were reported.
            store: of the answers and videos of the model that the report is about.

        Raises:
            Unanswered: an answer or a video is not in the store.
            NotFinite: a metric is not.
        """
        names = [e.name for e, _ in self._measured if isinstance(e, Asker)]
        prefixes = tuple(f"{name}/" for name in names)
        again: dict[str, float] = {}
        _add(again, {n: value for n, value in metrics.items() if not n.startswith(prefixes)})
        for (evaluator, data), asking in zip(self._measured, self._asking, strict=True):
            if isinstance(evaluator, VideoEvaluator):
                _add(again, evaluator.evaluate(_videos(evaluator, store), data))
            elif asking:
                _add(again, evaluator.evaluate(store.of(asking), data))
        self._check_score(again)
        return again

    def _check_score(self, metrics: Mapping[str, float]) -> None:
        if lacking := [name for name in self._score if name not in metrics]:
            raise BadInput(
                f"evaluation.score: no evaluator gives {', '.join(lacking)} "
                f"(given: {', '.join(metrics)})"
            )


def _add(metrics: dict[str, float], found: Mapping[str, float]) -> None:
    for name, value in found.items():
        if name in metrics:
            raise BadInput(f"two evaluators give a metric named {name!r}")
        if not math.isfinite(value):
            raise NotFinite(f"the metric {name!r} is {value}")
        metrics[name] = float(value)


def _asking_id(evaluator: Asker, data: EvaluationSet) -> str:
    """Return what stands for all that an evaluator asks, beside the code that makes questions.

    A user's code does not count: stored answers are told by their questions, videos by prompts.
    """
    asking = [evaluator.name, evaluator.asking(), evaluator.ASKING, data.id]
    return content_id("asking", *asking)


def _answerer(model: Any, evaluator: str) -> Answerer:
    if not isinstance(model, Answerer):
        raise BadInput(f"{evaluator}: it asks questions, but this model answers none")
    return model


def _maker(model: Any, evaluator: str) -> VideoMaker:
    if not isinstance(model, VideoMaker):
        raise BadInput(f"{evaluator}: it asks for videos, but this model makes none")
    return model


def _videos(
    evaluator: VideoEvaluator, store: AnswerStore, maker: VideoMaker | None = None
) -> StoredVideos:
    return StoredVideos(store, evaluator.config.sampling, evaluator.ASKING, maker)


def _stored(store: AnswerStore | None, evaluator: str) -> AnswerStore:
    if store is None:
        raise BadInput(
            f"{evaluator}: answers and videos are stored by the samples that the model has seen; "
            "the model family is to say them: task.evaluate(model, samples)"
        )
    return store


def _finite(model: Any, evaluator: str) -> _Finite:
    if isinstance(model, Artefact):
        raise BadInput(f"{evaluator}: it asks for embeddings, but this model is only had as files")
    return _Finite(model)


def _as_files(model: Any, evaluator: str, stack: ExitStack) -> Artefact:
    if isinstance(model, Artefact):
        return model
    if not isinstance(model, Saved):
        raise BadInput(f"{evaluator}: it reads files, but this model has no way to be saved")
    return model.save(stack.enter_context(temporary()))


class _Finite:
    """An encoder whose numbers can be compared: with NaN, some comparisons favour the model."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def images(self, data: EvaluationSet) -> NDArray[np.float32]:
        return self._checked("images", self._encoder.images(data))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._checked("texts", self._encoder.texts(texts))

    @staticmethod
    def _checked(what: str, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(embeddings).all():
            raise NotFinite(f"the model's embeddings of {what} are not finite")
        return embeddings
