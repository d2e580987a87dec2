"""The command line: thin; every command reads the configuration, then calls what does the work."""

from __future__ import annotations

import glob
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from djsandbox_ray import __version__
from djsandbox_ray.errors import BadInput, SandboxError, Stopped
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.connection import prepare_environment
from djsandbox_ray.service.commands import (
    AsJson,
    ConfigPath,
    OverBudget,
    Overrides,
    StorageUrl,
    logs,
    status,
    stop,
    submit,
)

if TYPE_CHECKING:
    from djsandbox_ray.stats.compute import StatisticsConfig
    from djsandbox_ray.stats.operators import OperatorSpec

app = typer.Typer(
    name="djsandbox",
    help="Find out which Data-Juicer operators make a multimodal model better: with evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _runs(incomplete: str) -> list[str]:
    """Return the runs of the usual storage whose names begin so, for shells to choose from."""
    return sorted(path.name for path in Path("sandbox/runs").glob(f"{glob.escape(incomplete)}*"))


def _examples(incomplete: str) -> list[str]:
    from djsandbox_ray.workflows.examples import names

    return [name for name in names() if name.startswith(incomplete)]


RunName = Annotated[str, typer.Argument(help="The name of the run.", autocompletion=_runs)]
RunStorage = Annotated[str, typer.Option("--storage", help="Where the run lies.")]
OptionalConfig = Annotated[
    str | None, typer.Argument(help="The YAML configuration of the run.", show_default=False)
]
Example = Annotated[
    str | None,
    typer.Option(
        "--example",
        help="In place of a file: a configuration that is shipped, as demo.",
        autocompletion=_examples,
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"djsandbox {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None: ...


@app.command()
def init(
    path: Annotated[
        str | None,
        typer.Argument(help="A file or folder of data, local or a URL.", show_default=False),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Instead: write the configuration of the demo.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("--output", help="The new file; never one that is there.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="What a run may take on this machine: some steps are timed, and model, budget and "
            "rows of the data chosen by that.",
            min=1,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Look at data, say what it is, and write a configuration that runs on it."""
    from djsandbox_ray.workflows.starter import write_example, write_starter

    if (path is None) != demo:
        raise typer.BadParameter("either a path of data or --demo is needed")
    if demo and minutes is not None:
        raise typer.BadParameter("--minutes is for data of your own, not for --demo")
    if path is None:
        write_example("demo", output, _console())
    else:
        write_starter(path, output, _console(), minutes)


@app.command()
def run(
    config: OptionalConfig = None,
    example: Example = None,
    overrides: Overrides = None,
    storage: StorageUrl = None,
    over_budget: OverBudget = False,
) -> None:
    """Run a configuration, or resume it: what is done is not done again."""
    from djsandbox_ray.config import with_places
    from djsandbox_ray.workflows.beforehand import load_run
    from djsandbox_ray.workflows.foresight.plan import check_budget
    from djsandbox_ray.workflows.run import run_sandbox

    path = _chosen(config, example)
    with with_places(path, overrides or (), storage):
        loaded = load_run(path, overrides or (), storage)
        check_budget(loaded, over_budget)
        run_sandbox(loaded, _console())


@app.command()
def rescore(
    config: ConfigPath,
    overrides: Overrides = None,
    storage: StorageUrl = None,
) -> None:
    """Score the stored answers of models again and bring a run up to date, without any training.

    What `run` does anyway, as far as that takes no model; where one is needed, it says of which
    trials, and ends with exit code 3.
    """
    from djsandbox_ray.config import with_places
    from djsandbox_ray.workflows.beforehand import load_run
    from djsandbox_ray.workflows.run import run_sandbox

    with with_places(config, overrides or (), storage):
        run_sandbox(load_run(config, overrides or (), storage), _console(), trains=False)


@app.command()
def plan(
    config: OptionalConfig = None,
    example: Example = None,
    overrides: Overrides = None,
    storage: StorageUrl = None,
    as_json: AsJson = False,
    power: Annotated[
        bool, typer.Option("--power", help="Which effect can be found, by earlier runs' noise.")
    ] = False,
    effect: Annotated[
        float | None,
        typer.Option("--effect", help="With --power: the change to find, 0.05 for +5 %.", min=0),
    ] = None,
    over_budget: OverBudget = False,
) -> None:
    """Say what a run would do, what of it is done, and what it would cost. Runs nothing.

    What the run would lack on this machine is told at the end: it may be planned before there are
    any data.
    """
    from djsandbox_ray.config import with_places
    from djsandbox_ray.workflows.beforehand import load_plan
    from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table

    path = _chosen(config, example)
    if effect is not None and not power:
        raise BadInput("--effect is for --power")
    with with_places(path, overrides or (), storage):
        loaded = load_plan(path, overrides or (), storage)
        made = make_plan(loaded)
    if power:
        from djsandbox_ray.workflows.foresight.power import make_power, power_table

        made["power"] = make_power(loaded, effect)
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    else:
        _console().print(plan_table(made), soft_wrap=True)
        if power:
            _console().print(power_table(made["power"]))
    check_budget(loaded, over_budget)


@app.command()
def report(
    run: RunName,
    summary: Annotated[
        bool, typer.Option("--summary", help="In one line, for a chat or a log.")
    ] = False,
    storage: RunStorage = "./sandbox",
) -> None:
    """Print again what a run has found: verdicts, what they cost, and where the page is."""
    from djsandbox_ray.workflows.look import show_report

    show_report(run, storage, summary, _console())


@app.command()
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a page that people read.")
    ] = False,
) -> None:
    """Print the JSON schema of a configuration, with every built-in component, for editors.

    The first line of a YAML file says where the schema lies that its editor is to use:
    `# yaml-language-server: $schema=PATH`. Those that `init` writes and those that are shipped have
    such a line.
    """
    from djsandbox_ray.workflows.schema import configuration_page, configuration_schema

    if markdown:
        typer.echo(configuration_page(), nl=False)
    else:
        typer.echo(json.dumps(configuration_schema(), indent=1, ensure_ascii=False))


@app.command()
def sync(
    run: RunName,
    storage: RunStorage = "./sandbox",
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri", help="Of a run that MLflow tracks: another MLflow server or database."
        ),
    ] = None,
) -> None:
    """Send to the run's tracker (MLflow, TensorBoard, Weights & Biases) what an outage kept away.

    With `--uri`, to another MLflow. Nothing gets there twice.
    """
    from djsandbox_ray.workflows.finished import sync_run

    told = sync_run(run, storage, uri)
    if told.unsent:
        raise SandboxError(f"{told.unsent} records could not be sent; try again later")
    _console().print(f"{told.trials} trials of {told.runs} run(s) are there")


@app.command()
def operators(
    name: Annotated[str | None, typer.Argument(help="Of one filter: all about it.")] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", help="With a name: with the parameters and models given here."),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option("--modality", help="Only those of text, image, video, audio or multimodal."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", help="Only those whose name, statistics or text hold these words."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the filters of Data-Juicer and what they need; of one, where it is and how to get it."""
    from djsandbox_ray.reporting.terminal import operator_page, operators_table
    from djsandbox_ray.stats.catalogue import catalogue, describe, matching

    if name is None and config is not None:
        raise BadInput("--config is for one operator: djsandbox operators NAME --config FILE")
    if name is not None and (modality or search):
        raise BadInput("--modality and --search are for the list, not for one operator")
    if name is not None:
        given, settings = _given_operators(config)
        pages = describe(name, given, settings.models, settings.endpoint)
        if as_json:
            typer.echo(json.dumps([asdict(page) for page in pages], indent=2, default=str))
        else:
            for page in pages:
                _console().print(operator_page(page), soft_wrap=True)
        return
    found = matching(catalogue(), modality, search)
    if as_json:
        listed = [{**asdict(entry), "available": entry.available} for entry in found]
        typer.echo(json.dumps(listed, indent=2))
    else:
        console = _console()
        console.print(operators_table(found, console.width))


@app.command()
def recipe(
    name: Annotated[
        str, typer.Argument(help="A finished run; with --accept, a dataset: its id or its path.")
    ],
    accept: Annotated[
        str | None,
        typer.Option("--accept", help="Have Data-Juicer itself run this recipe on the dataset."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Also copy the recipe to this file.")
    ] = None,
    storage: RunStorage = "./sandbox",
) -> None:
    """Show the recipe of a run; with `--accept RECIPE DATASET`, see whether it does as promised."""
    from djsandbox_ray.workflows.recipe import accept_recipe, show_recipes

    if accept is None:
        show_recipes(name, storage, output, _console())
    elif output is not None:
        raise BadInput("--output is for the recipe of a run, not for --accept")
    else:
        accept_recipe(accept, name, storage, _console())


@app.command()
def materialise(
    run: RunName,
    output: Annotated[str, typer.Option("--output", help="A new folder, or one to go on with.")],
    pool: Annotated[str | None, typer.Argument(help="The id of a pool of the run.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Instead: what this recipe keeps.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="jsonl, parquet, webdataset, huggingface or package.module:Class."
        ),
    ] = "jsonl",
    rows_per_shard: Annotated[
        int, typer.Option("--rows-per-shard", help="Rows of every file but the last.")
    ] = 10_000,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Of huggingface: to the hub, private."),
    ] = None,
    storage: RunStorage = "./sandbox",
) -> None:
    """Write the rows of a pool or of a recipe to files, for trainers elsewhere; resumable."""
    from djsandbox_ray.workflows.recipe import materialise_rows

    materialise_rows(
        run,
        pool,
        recipe,
        storage,
        _console(),
        output=output,
        form=form,
        rows_per_shard=rows_per_shard,
        repository=push,
    )


@app.command("export-model")
def export_model(
    run: Annotated[str, typer.Argument(help="The name of the run.")],
    pool: Annotated[str, typer.Argument(help="The id of a pool of the run.")],
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the trial; by default the best.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="Also copy the model to this new folder.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="To the hub of Hugging Face, private."),
    ] = None,
    storage: Annotated[str, typer.Option("--storage", help="Where the run lies.")] = "./sandbox",
) -> None:
    """Train the best trial of a pool once more, and keep its model in its library's format."""
    from djsandbox_ray.workflows.export_model import export_model as train_and_export

    train_and_export(run, pool, storage, _console(), seed=seed, output=output, repository=push)


@app.command()
def score(
    benchmark: Annotated[
        str,
        typer.Argument(
            help="mmbench, mme, pope, textvqa, vqa for questions of your own; vbench of videos."
        ),
    ],
    answers: Annotated[
        str | None, typer.Option("--answers", help="A file of answers, or a folder.")
    ] = None,
    videos: Annotated[
        str | None, typer.Option("--videos", help="A folder of videos: <prompt>-<number>.mp4.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark", help="The benchmark's files: what is right, or VBench_full_info.json."
        ),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option("--questions", help="LLaVA's file of the questions that it was asked."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the evaluator, e.g. language=cn."),
    ] = None,
    gpus: Annotated[
        float, typer.Option("--gpus", help="GPUs that models may use which look at videos.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Score a model's answers or videos that another program has made, by a benchmark's rules."""
    from djsandbox_ray.workflows import score as scoring

    if (answers is None) == (videos is None):
        raise BadInput("either --answers or --videos is needed: what the model has made")
    scored: scoring.Scored | scoring.ScoredVideos
    if videos is not None:
        if questions is not None:
            raise BadInput("--questions: videos are made from prompts (--benchmark)")
        scored, known = scoring.score_videos(benchmark, videos, files or (), settings or (), gpus)
    else:
        assert answers is not None
        scored, known = scoring.score_answers(
            benchmark, answers, files or (), questions, settings or ()
        )
    if as_json:
        typer.echo(json.dumps(asdict(scored), indent=2))
    else:
        _console().print(scoring.score_table(scored, known))


for command in (submit, status, stop, logs):
    app.command()(command)


def _chosen(config: str | None, example: str | None) -> str:
    """Return the path of a configuration: a file, or one that is shipped."""
    from djsandbox_ray.workflows import examples

    if (config is None) == (example is None):
        raise typer.BadParameter("either a configuration or --example is needed")
    return examples.example(example) if example is not None else str(config)


def _given_operators(config: str | None) -> tuple[Sequence[OperatorSpec], StatisticsConfig]:
    """Return the operators of a configuration and how they are computed, if one is given."""
    from djsandbox_ray.config import checked, read_document
    from djsandbox_ray.stats.compute import StatisticsConfig
    from djsandbox_ray.stats.operators import parse_process

    if config is None:
        return (), StatisticsConfig()
    # What its operators lack is what is asked: no error here.
    loaded = checked(read_document(config), config, elsewhere=True)
    return parse_process(loaded.operators), loaded.statistics


def _console() -> Console:
    """Tables get the width they need where nobody's window limits it."""
    return Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Run the program; errors that a user can mend are printed without a traceback."""
    prepare_environment()
    # A user's own package.module:Class is found from where the command is typed.
    sys.path.insert(0, str(Path.cwd()))
    try:
        app(prog_name="djsandbox")
    except SandboxError as error:
        label = ("stopped: ", "bold") if isinstance(error, Stopped) else ("error: ", "bold red")
        message = Text.assemble(label, without_secrets(str(error)))
        Console(stderr=True).print(message, soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception:  # a defect: said whole, but a traceback quotes what may hold a secret
        sys.stderr.write(without_secrets(traceback.format_exc()))
        sys.exit(SandboxError.exit_code)


if __name__ == "__main__":
    main()
