"""`rl config show | check | schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rl.errors import ConfigError

config_app = typer.Typer(help="Look at configs and check them.", no_args_is_help=True)

ANY_OUT, ANY_SEED = "runs/any", 0
"""Stand for `{out}` and `{seed}` where a step's file is checked without its pipeline."""


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
