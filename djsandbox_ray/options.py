"""Arguments and options that several commands of the command line share."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigPath = Annotated[str, typer.Argument(help="The YAML configuration of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace one value, e.g. trials.seeds=5."),
]
StorageUrl = Annotated[
    str | None, typer.Option("--storage", help="Folder or URL for artifacts, over the config's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
OverBudget = Annotated[
    bool, typer.Option("--over-budget", help="Allow more than the section `cost` does.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The Ray dashboard, http://HEAD:8265; else of RAY_API_SERVER_ADDRESS or RAY_ADDRESS.",
    ),
]
JobKey = Annotated[str, typer.Argument(metavar="ID", help="A job, or a run: its newest job.")]
