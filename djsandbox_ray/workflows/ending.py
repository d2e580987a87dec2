"""What a run says at its end: the verdicts, what they cost, and where all of it is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from textwrap import indent, wrap
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from djsandbox_ray.config import RunConfig
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.ledger.cost import from_json
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.records import (
    Acceptance,
    Confirmation,
    ConfirmationRow,
    Evolution,
    EvolutionMetric,
    EvolutionRow,
    Insights,
    InteractionRow,
    Interactions,
    Ledger,
    Ranking,
    RankingRow,
    Recipe,
    Report,
)
from djsandbox_ray.reporting.costs import costs_table
from djsandbox_ray.reporting.evolution import evolution_table
from djsandbox_ray.reporting.method import confirmation_section
from djsandbox_ray.reporting.ranking import Unit, notes
from djsandbox_ray.reporting.recipe import recipe_line
from djsandbox_ray.reporting.terminal import ranking_table, section_table
from djsandbox_ray.reporting.together import COMBINATIONS, interactions_notes
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.publish import is_main

R = TypeVar("R")

_WORD = 7
"""Characters of the column with what a sentence of the answer is about."""


def print_results(
    console: Console, config: RunConfig, context: Context, outputs: Mapping[str, Any], unsent: int
) -> None:
    """Print what was found, what to know of it, what it cost, and where all of it is.

    Args:
        console: to print on.
        config: of the run.
        context: of its last round.
        outputs: of its last round, by job.
        unsent: how many things could not be sent to the tracker.
    """
    # Without an evaluation there are no changes to be shown.
    unit = Unit.of(config.measuring.kind) if config.measuring else Unit.PERCENT
    results = Results(console, context.storage, list(outputs.values()), unit)
    more = [f"runs    {command}"] if (command := context.tracker.ui_command) else []
    if unsent:
        again = f"djsandbox sync {config.name} --storage {shlex.quote(context.storage.shown)}"
        more.append(
            f"{unsent} records could not be sent to the tracker; the same command sends them, and "
            f"so does: {again}"
        )
    results.show(more)


class Results:
    """What is printed of the outputs that there are.

    Args:
        console: to print on.
        storage: where their files lie.
        outputs: of jobs, those of later ones later.
        unit: what changes are measured in.
    """

    def __init__(
        self, console: Console, storage: Storage, outputs: Sequence[Any], unit: Unit
    ) -> None:
        self._console, self._storage, self._unit = console, storage, unit
        self._outputs = outputs

    def show(self, more: Iterable[str] = ()) -> None:
        """Print verdicts, what became of the best, what all cost, where it is; then the answer.

        Args:
            more: lines before the answer, which comes last.
        """
        self.verdicts()
        self.combinations()
        self.evolution()
        self.costs()
        self.places()
        self.say(more)
        self.answer()

    def say(self, lines: Iterable[str]) -> None:
        """Print lines as they are, however long."""
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)

    def verdicts(self) -> None:
        """Print the ranking of single operators, and what a second look says of it."""
        for ranking in filter(is_main, self._all(Ranking)):
            rows = self._storage.read_rows(RankingRow, ranking.path)
            self._console.print()
            self._console.print(ranking_table(rows, self._unit))
            self.say(notes(rows))
        for report in self._all(Report)[-1:]:
            self.say(report.summary)
        for confirmation in self._all(Confirmation):
            confirmed = self._storage.read_rows(ConfirmationRow, confirmation.path)
            self._console.print()
            self._console.print(section_table(confirmation_section(confirmed, self._unit)))

    def combinations(self) -> None:
        """Print every other ranking, and the strongest interaction."""
        for ranking in self._all(Ranking):
            if not is_main(ranking):
                rows = self._storage.read_rows(RankingRow, ranking.path)
                self._console.print()
                self._console.print(ranking_table(rows, self._unit, COMBINATIONS))
        for found in self._all(Interactions):
            table = self._storage.read_rows(InteractionRow, found.path)
            self.say(interactions_notes(table, self._unit)[:1])

    def evolution(self) -> None:
        """Print the stages of a chain."""
        for found in self._all(Evolution):
            rows = self._storage.read_rows(EvolutionRow, found.path)
            metrics = self._storage.read_rows(EvolutionMetric, found.metrics)
            self._console.print()
            self._console.print(section_table(evolution_table(rows, metrics)))

    def costs(self) -> None:
        """Print what every job cost; the last ledger holds what earlier ones do."""
        for ledger in self._all(Ledger)[-1:]:
            self._console.print()
            self._console.print(costs_table(from_json(self._storage.read_sealed(ledger.path))))

    def places(self) -> None:
        """Print what became of the recipe, and where the files are."""
        accepted = {
            self._storage.read_sealed(item.path)["recipe"]: item for item in self._all(Acceptance)
        }
        for recipe in self._all(Recipe):
            tried = accepted.get(PurePosixPath(recipe.path).name)
            self.say([recipe_line(recipe, tried, self._unit)])
            self._place("recipe ", recipe.path or recipe.evidence)
        for insights in self._all(Insights):
            self._place("insights", insights.path)
        for evolution in self._all(Evolution):
            self._place("stages ", evolution.text)
        for report in self._all(Report)[-1:]:
            self._place("report ", report.path)
            self._place("picture", report.figure)
            if report.videos:
                self._place("videos ", report.videos)

    def answer(self) -> None:
        """Print what to keep, what it is worth, how sure that is and what to do next, at last."""
        for report in self._all(Report)[-1:]:
            self._console.print()
            for word, said in report.answer:
                if word != "next":  # a command is for copying: it stays whole
                    said = "\n".join(wrap(said, max(self._console.width - _WORD, _WORD)))
                line = Text.assemble(
                    (f"{word:<{_WORD}}", "bold"), indent(said, " " * _WORD)[_WORD:]
                )
                self._console.print(line, soft_wrap=True)

    def _place(self, name: str, path: str) -> None:
        self.say([without_secrets(f"{name} {self._storage.uri(path)}")])

    def _all(self, kind: type[R]) -> list[R]:
        return [output for output in self._outputs if isinstance(output, kind)]
