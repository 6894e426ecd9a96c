"""`rl config show | check | keys | schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rl.errors import ConfigError

if TYPE_CHECKING:
    from rl.config.keys import Key

config_app = typer.Typer(help="Look at configs and check them.", no_args_is_help=True)

ANY_OUT, ANY_SEED = "runs/any", 0
"""Stand for `{out}` and `{seed}` where a step's file is checked without its pipeline."""
WIDE = 200
"""Columns of a table that goes to a file."""


@config_app.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Print a config with its defaults and overrides."""
    from rl.commands import command_of, load
    from rl.config.base import dump_config

    print(dump_config(load(command_of(path), path, overrides or [])), end="")


@config_app.command("check")
def check(paths: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="YAML files.")]) -> None:
    """Validate config files; a pipeline with the files of its steps."""
    from rl.commands import unfilled_keys

    wrong = 0
    for path in paths:
        try:
            words = check_file(path)
        except ConfigError as exc:
            wrong += 1
            print(f"{path}: {exc}")
        else:
            keys = ", ".join(unfilled_keys(path))
            step = f"; a step of a pipeline, which fills {keys}: it can't run without values for them" if keys else ""
            print(f"{path}: ok (rl {words}{step})")
    if wrong:
        raise ConfigError(f"{wrong} of {len(paths)} files can't be used")


@config_app.command("schema")
def schema(command: Annotated[str, typer.Argument(help="For example train, or data-synth.")]) -> None:
    """Print the JSON schema of a command's config."""
    from rl.commands import find, resolve

    model: Any = resolve(find(command).config)
    print(json.dumps(model.model_json_schema(), indent=2))


@config_app.command("keys")
def keys(
    command: Annotated[str, typer.Argument(help="For example train, or curate-select.")],
    wanted: Annotated[str, typer.Argument(metavar="[SECTION]", help="A section, or any part of a dotted name.")] = "",
) -> None:
    """Print what can be set: name, type, default and meaning. `rl config keys train learner.optimizer`"""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    found = find_keys(command, wanted)
    table = Table("key", "type", "default", "meaning", show_lines=False, pad_edge=False)
    for key in found:
        name = f"[bold]{escape(key.name)}[/bold]" if key.type.startswith("section") else escape(key.name)
        table.add_row(name, escape(key.type), escape(key.default), escape(key.meaning))
    console = Console()
    # In a file or a pipe a narrow table would cut names apart, which one greps for.
    console = console if console.is_terminal else Console(width=WIDE)
    console.print(table)


def find_keys(command: str, wanted: str = "") -> list[Key]:
    """The keys of a command's config below the section `wanted`, else those that have it in their name.

    Raises:
        ConfigError: there is none such; names the nearest.
    """
    from rewards.names import did_you_mean
    from rl.commands import find, resolve
    from rl.config.keys import keys_of

    entry = find(command)
    every = list(keys_of(resolve(entry.config)))
    below = [key for key in every if key.name == wanted or key.name.startswith(f"{wanted}.")]
    found = below or [key for key in every if wanted in key.name]
    if not found:
        names = {part for key in every for part in (key.name, key.name.rpartition(".")[2])}
        hint = did_you_mean(wanted, names) or "leave it out to see them all"
        raise ConfigError(f"`rl {entry.words}` has no key or section {wanted!r}; {hint}")
    return found


def check_file(path: Path) -> str:
    """Validate one file; returns the words of its command.

    Raises:
        ConfigError: the file, or a step of a pipeline, is not valid.
    """
    from rl.commands import command_of, load
    from rl.config.pipeline import PipelineConfig
    from rl.pipeline import prepare

    command = command_of(path)
    config = load(command, path, variables={"out": ANY_OUT, "seed": ANY_SEED})
    if isinstance(config, PipelineConfig):
        prepare(config, path.parent)
    return command.words
