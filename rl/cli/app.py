"""The commands, their arguments and their help. Imports nothing heavy: `rl --help` answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rl.cli.arguments import AutoResume, ConfigPath, DryRun, Overrides, Resume
from rl.cli.configs import config_app
from rl.cli.curate import curate_app
from rl.cli.execute import execute, execute_pipeline
from rl.cli.workers import workers_app
from rl.errors import ConfigError, DataError, InterruptedRunError, RLError, StoppedError

USAGE_ERROR = 2
STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: a command that was asked to stop did so in good order, and starting it again goes on."""
INTERRUPTED = 130
"""As a shell says of a command that SIGINT ended."""
_EXIT_CODES: dict[type[RLError], int] = {StoppedError: STOPPED, InterruptedRunError: INTERRUPTED}
TRACEBACK = "RL_TRACEBACK"
"""Environment variable: 1 shows where an error comes from."""

Layout = Literal["rl172k", "jsonl", "verl", "trl", "virl39k"]

RUN_FILES = (
    *("pipeline.json", "metrics.jsonl", "evals/*.json", "fates.jsonl", "timeline.jsonl"),
    *("*/metrics.jsonl", "rl/evals/*.json", "curate/candidates.parquet"),
)
"""What at least one of is in the folder of a run or of a pipeline; `rl report` writes into no other."""

app = typer.Typer(
    help="Asynchronous RL post-training for scientific multimodal models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make, look at and convert datasets.", no_args_is_help=True)
model_app = typer.Typer(help="Make and import models.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(config_app, name="config")
app.add_typer(curate_app, name="curate")
app.add_typer(workers_app, name="workers")


def main() -> None:
    """Run the command line.

    Errors that the project raises on purpose end it with one message and exit code 2, a run that was asked to stop
    with 75, Ctrl-C with 130.
    """
    try:
        app()
    except RLError as exc:
        if os.environ.get(TRACEBACK) == "1":
            raise
        from rich.console import Console

        # No markup: the message may hold brackets from a user's file.
        code = _EXIT_CODES.get(type(exc), USAGE_ERROR)
        text, style = (f"error: {exc}", "red") if code == USAGE_ERROR else (str(exc), "yellow")
        if code == INTERRUPTED:
            # Python's own handler would print a traceback for another Ctrl-C while Ray and others clean up at exit.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)
        sys.exit(code)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from rl import __version__

        print(__version__)
        raise typer.Exit


@data_app.command("synth")
def data_synth(config: ConfigPath, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Write synthetic datasets with rendered images."""
    execute("data synth", config, overrides or [], dry_run=dry_run)


@data_app.command("inspect")
def data_inspect(
    path: Annotated[Path, typer.Argument(help="Parquet or JSONL file, or a folder of a dataset.")],
    read_as: Annotated[Layout, typer.Option("--from", help="Layout of the dataset.")] = "rl172k",
    strict: Annotated[bool, typer.Option("--strict", help="Fail when there are rows that can't be used.")] = False,
) -> None:
    """Show what a dataset holds, and the rows that can't be used."""
    from rich.console import Console

    from rl.data.inspect import render, summarise

    summary = summarise(path, read_as)
    render(summary, Console())
    if not summary.rows:
        raise DataError(f"{path} has no usable row" + ("; the reasons are listed above" if summary.bad_rows else ""))
    if strict and summary.bad_rows:
        raise DataError(f"{path}: {summary.bad} can't be used; they are listed above")


@data_app.command("convert")
def data_convert(
    source: Annotated[Path, typer.Argument(help="Dataset to read.")],
    target: Annotated[Path, typer.Argument(help="Where to write: .parquet, .jsonl, or a folder for shards.")],
    read_as: Annotated[Layout, typer.Option("--from", help="Layout of SOURCE.")] = "rl172k",
    write_as: Annotated[Layout, typer.Option("--to", help="Layout of TARGET.")] = "rl172k",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that can't be used.")] = False,
) -> None:
    """Translate a dataset between layouts."""
    from rl.data.formats import convert
    from rl.data.validate import BadRow

    bad: list[BadRow] = []
    on_bad: Literal["skip", "raise"] = "skip" if skip_bad else "raise"
    count = convert(source, target, read_as=read_as, write_as=write_as, on_bad=on_bad, report=bad)
    for row in bad:
        print(f"left out: {row}", file=sys.stderr)
    print(f"{target}: {count} rows")


@data_app.command("gym")
def data_gym(
    target: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    counts: Annotated[list[str], typer.Argument(metavar="NAME=ROWS...", help="Rows by dataset; `all=ROWS` for each.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = 0,
) -> None:
    """Write rows of reasoning-gym datasets: `rl data gym data/gym.parquet leg_counting=100 rubiks_cube=50`."""
    from rl.data.gym import parse_counts, write_gym

    wanted = parse_counts(counts)
    print(f"{write_gym(target, wanted, seed=seed)}: {sum(wanted.values())} rows of {len(wanted)} datasets")


@model_app.command("init")
def model_init(config: ConfigPath, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Build a small vision-language model with random weights."""
    execute("model init", config, overrides or [], dry_run=dry_run)


@model_app.command("import")
def model_import(config: ConfigPath, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Save a GGUF file's language model, dequantised, as a Hugging Face folder."""
    execute("model import", config, overrides or [], dry_run=dry_run)


@app.command()
def sft(config: ConfigPath, overrides: Overrides = None, dry_run: DryRun = False, resume: Resume = False) -> None:
    """Train one supervised stage."""
    execute("sft", config, overrides or [], dry_run=dry_run, arguments={"resume": resume})


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    auto_resume: AutoResume = False,
) -> None:
    """Train a policy with asynchronous RL."""
    if resume and auto_resume:
        raise ConfigError(
            "--resume refuses a folder without a checkpoint, where --auto-resume starts; give one of them"
        )
    execute("train", config, overrides or [], dry_run=dry_run, arguments={"resume": "auto" if auto_resume else resume})


@app.command("eval")
def evaluate(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result that `out` holds.")] = False,
) -> None:
    """Measure accuracy per task, mean@k and Pass@k."""
    execute("eval", config, overrides or [], dry_run=dry_run, arguments={"overwrite": overwrite})


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run or of a pipeline.")],
) -> None:
    """Write report.html of a run or a pipeline and print its path."""
    from rl.metrics.report import write_report

    if folder.is_dir() and not any(next(folder.glob(pattern), None) for pattern in RUN_FILES):
        raise DataError(f"{folder} holds no run and no pipeline: none of {', '.join(RUN_FILES)}")
    print(write_report(folder))


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run.")],
    step: Annotated[int, typer.Option(help="A step that `record` of the run's config has kept.", min=1)],
) -> None:
    """Do a recorded step again on the learner alone; exit code 1 if it is not the same to the last bit."""
    from rich.console import Console
    from rich.table import Table

    from rl.replay import replay as do

    rows = do(folder, step)
    table = Table("", "recorded", "replayed", "same")
    for row in rows:
        table.add_row(row.name, str(row.recorded), str(row.replayed), "yes" if row.same else "NO")
    Console().print(table)
    raise typer.Exit(0 if all(row.same for row in rows) else 1)


@app.command()
def pipeline(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    out: Annotated[str | None, typer.Option(help="Folder to write to, instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the file's.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="STEP", help="First step: its name or number.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="Last step: its name or number.")] = None,
) -> None:
    """Run a list of commands, each in a process of its own."""
    values = {key: value for key, value in (("out", out), ("seed", seed)) if value is not None}
    code = execute_pipeline(config, overrides or [], values=values, dry_run=dry_run, start=start, until=until)
    raise typer.Exit(code)
