"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: section.key=value."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Resolve, validate and print the config, then stop.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")]
AutoResume = Annotated[
    bool, typer.Option("--auto-resume", help="Go on from the last checkpoint if there is one, else start: for retries.")
]
