"""The command line: thin; every command reads the configuration, then calls what does the work."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from djsandbox_ray.cluster import prepare_environment
from djsandbox_ray.errors import SandboxError

app = typer.Typer(
    name="djsandbox",
    help="Find out which Data-Juicer operators make a multimodal model better: with evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[str, typer.Argument(help="The YAML configuration of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace one value, e.g. trials.seeds=5."),
]
StorageUrl = Annotated[
    str | None, typer.Option("--storage", help="Folder or URL for artifacts, over the config's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    storage: StorageUrl = None,
) -> None:
    """Run a configuration, or resume it: what is done is not done again."""
    from djsandbox_ray.config import load_config
    from djsandbox_ray.workflows.run import run_sandbox

    run_sandbox(load_config(config, overrides or (), storage), _console())


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    storage: StorageUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do, what of it is done, and what it would cost. Runs nothing."""
    from djsandbox_ray.config import load_config
    from djsandbox_ray.workflows.plan import make_plan, plan_table

    made = make_plan(load_config(config, overrides or (), storage))
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    else:
        _console().print(plan_table(made))


@app.command()
def operators(as_json: AsJson = False) -> None:
    """List the filters of the installed Data-Juicer: statistics, modality, what they need."""
    from djsandbox_ray.reporting.operators import operators_table
    from djsandbox_ray.stats.catalogue import catalogue

    found = catalogue()
    if as_json:
        listed = [{**asdict(entry), "available": entry.available} for entry in found]
        typer.echo(json.dumps(listed, indent=2))
    else:
        _console().print(operators_table(found))


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
        message = Text.assemble(("error: ", "bold red"), str(error))
        Console(stderr=True).print(message, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
