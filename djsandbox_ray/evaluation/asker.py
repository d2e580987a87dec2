"""Evaluators that have a model make something, which is kept: answers, or videos.

Making takes the model; scoring only what it has made. So a formula may change without a training.
"""

from __future__ import annotations

from typing import Any, ClassVar

from djsandbox_ray.evaluation.evaluator import Evaluator


class Asker(Evaluator):
    """Asks a model for something that is stored, and scores it.

    ``VERSION`` is that of the scoring: a trial of which all that was made is stored is scored
    again, not trained again, when it is raised, or when a user's class is edited.
    """

    ASKING: ClassVar[int] = 1
    """To be raised when a model would be asked something else: then it is trained and asked again.
    What was made for another question never counts, whatever this is."""

    @property
    def name(self) -> str:
        """What its metrics' names begin with: by default its type, of a user's class the class."""
        return str(self.config.type).rpartition(":")[2]

    def asking(self) -> Any:
        """Return plain data that decides what is asked, beside the set.

        By default all settings. Settings that decide only how it is scored are to be left out: with
        others, what is stored is scored again.
        """
        return self.config.model_dump(mode="json")
