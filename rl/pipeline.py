"""`rl pipeline`: runs the steps of a pipeline file, each as a process of its own.

A process per step gives its memory back, and the first step that fails ends the pipeline with its exit code. The folder
`{out}` gets `configs/` (the resolved config of every step) and `pipeline.json` (step, seconds, exit code of each).
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from rewards.names import did_you_mean
from rl.commands import Command, find, load
from rl.config.base import StrictModel, dump_yaml, read_yaml, save_config
from rl.config.pipeline import PipelineConfig, StepConfig
from rl.config.placeholders import fill
from rl.config.rollout import EngineConfig
from rl.errors import ConfigError, EngineError

RECORD = "pipeline.json"
REPLACED = "replaced"
"""Folder under `out` for what a repeated step wrote before."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Step:
    """A step whose config is valid and complete."""

    number: int
    """Counted from 1."""
    title: str
    command: Command
    config: StrictModel

    @property
    def out(self) -> Path | None:
        """Where the step writes, if its config says so."""
        value = getattr(self.config, "out", None)
        return Path(value) if isinstance(value, str) else None


def prepare(config: PipelineConfig, folder: Path) -> list[Step]:
    """Validate the configs of all steps, before the first one runs.

    Args:
        folder: of the pipeline file; the steps' files are relative to it.
    Raises:
        ConfigError: names the step; or a name in `vars` that no step uses.
    """
    _refuse_idle_vars(config, folder)
    return [_prepare(config, step, number, folder) for number, step in enumerate(config.steps, start=1)]


def run(
    config: PipelineConfig,
    folder: Path,
    *,
    start: str | None = None,
    until: str | None = None,
    console: Console | None = None,
) -> int:
    """Run the steps from `start` to `until` (titles or numbers), both included; all of them by default.

    A run from the first step sets an earlier pipeline in the same `out` aside as `out.1`, `out.2`, ...; a run from a
    later one moves what the repeated steps wrote to `out/replaced`.

    Returns:
        0, the exit code of the step that failed, or 130 after Ctrl-C.
    """
    console = console or Console()
    steps = prepare(config, folder)
    first, last = _position(steps, start, 0), _position(steps, until, len(steps) - 1)
    if first > last:
        raise ConfigError(f"step {steps[first].title} comes after step {steps[last].title}; nothing would run")
    check_engines(steps[first : last + 1])
    out = Path(config.out)
    records = _read_records(out, {step.title for step in steps[:first]}) if first else []
    if first == 0:
        _set_pipeline_aside(out, console)
    for step in steps:
        save_config(step.config, _config_path(out, step))
    began = time.monotonic()
    for step in steps[first : last + 1]:
        _set_step_aside(out, step, steps)
        _header(console, step, len(steps), time.monotonic() - began)
        step_began = time.monotonic()
        code = _run_process(["-m", "rl", *step.command.words.split(), str(_config_path(out, step))])
        seconds = round(time.monotonic() - step_began, 3)
        records.append({"step": step.title, "seconds": seconds, "exit_code": code})
        _write_records(out, records)
        if code != 0:
            what = "was interrupted" if code == INTERRUPTED else f"ended with exit code {code}"
            when = "" if code == INTERRUPTED else "when the cause is mended, "
            text = f"step {step.number} ({step.title}) {what}; {when}go on with --from {step.title}"
            console.print(text, style="red", highlight=False)
            return code
    if last == len(steps) - 1 and any(step.command.words == "train" for step in steps):
        from rl.metrics.summary import print_final

        print_final(out, console, brief=steps[last].command.words == "train")
    return 0


def _prepare(config: PipelineConfig, step: StepConfig, number: int, folder: Path) -> Step:
    command = find(step.run)
    reserved = {"out": config.out, "seed": config.seed}
    variables = {**fill(config.vars, reserved), **reserved}
    try:
        loaded = load(command, folder / step.config, variables=variables, values=step.set)
    except ConfigError as exc:
        raise ConfigError(f"step {number} ({step.title}): {exc}") from exc
    return Step(number, step.title, command, loaded)


def check_engines(steps: Iterable[Step]) -> None:
    """Look for what the steps' engines need on this machine: the first that misses it may come after an hour of others.

    Raises:
        ConfigError: names the step.
    """
    from rl.rollout.sglang_server import find_python

    for step in steps:
        for engine in _engines(step.config):
            # Workers on the nodes of a cluster find the interpreter there, and say so if they don't.
            if engine.backend == "sglang" and getattr(step.config, "ray_address", None) is None:
                try:
                    find_python(engine.sglang.python)
                except EngineError as exc:
                    raise ConfigError(
                        f"step {step.number} ({step.title}) generates with SGLang, and there is {exc}"
                    ) from exc


def _engines(node: Any) -> Iterator[EngineConfig]:
    """The engines in a config."""
    if isinstance(node, EngineConfig):
        yield node
    elif isinstance(node, StrictModel | Mapping):
        yield from _engines(tuple(dict(node).values()))
    elif isinstance(node, tuple | list):
        for value in node:
            yield from _engines(value)


def _refuse_idle_vars(config: PipelineConfig, folder: Path) -> None:
    texts = [dump_yaml([dict(config.vars), *(step.set for step in config.steps)])]
    texts += [dump_yaml(read_yaml(folder / step.config)) for step in config.steps]
    used = set(re.findall(r"\{([a-z_][a-z0-9_]*)\}", "\n".join(texts)))
    for name in config.vars:
        if name not in used:
            hint = did_you_mean(name, used) or f"names that are used: {', '.join(sorted(used)) or 'none'}"
            raise ConfigError(f"vars.{name} is in no step as {{{name}}}, so it would change nothing; {hint}")


def _position(steps: Sequence[Step], wanted: str | None, default: int) -> int:
    if wanted is None:
        return default
    for index, step in enumerate(steps):
        if wanted in (step.title, str(step.number)):
            return index
    raise ConfigError(f"no step {wanted!r}; the steps are {', '.join(f'{s.number} {s.title}' for s in steps)}")


def _config_path(out: Path, step: Step) -> Path:
    return out / "configs" / f"{step.number:02d}-{step.title}.yaml"


def _header(console: Console, step: Step, count: int, elapsed: float) -> None:
    minutes, seconds = divmod(int(elapsed), 60)
    title = f"{step.number}/{count} {step.title}  (rl {step.command.words})  {minutes}:{seconds:02d} elapsed"
    console.rule(f"[bold]{title}[/bold]", align="left")


def _run_process(arguments: Sequence[str]) -> int:
    """Run this interpreter with `arguments`; Ctrl-C and SIGTERM reach the child, whose end is waited for."""
    process = subprocess.Popen([sys.executable, *arguments])

    def forward(number: int, frame: FrameType | None) -> None:
        process.terminate()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # The terminal has sent the child the same signal. It closes Ray and its engines; a second Ctrl-C ends it.
        try:
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else 128 - code


def _read_records(out: Path, titles: set[str]) -> list[dict[str, object]]:
    """Records of the steps that an earlier run of this pipeline has done."""
    path = out / RECORD
    if not path.exists():
        return []
    return [record for record in json.loads(path.read_text()) if record["step"] in titles]


def _write_records(out: Path, records: Sequence[dict[str, object]]) -> None:
    beside = out / f"{RECORD}.tmp"
    beside.write_text(json.dumps(records, indent=1) + "\n")
    beside.replace(out / RECORD)


def _set_pipeline_aside(out: Path, console: Console) -> None:
    """Move an earlier pipeline away, so that its metrics and this one's do not end up in the same files."""
    if not (out / RECORD).exists() and not (out / "configs").exists():
        return
    number = 1
    while (aside := out.with_name(f"{out.name}.{number}")).exists():
        number += 1
    out.rename(aside)
    text = f"{out} held an earlier pipeline; it is {aside} now, and this one starts anew (--from STEP goes on with one)"
    console.print(text, style="yellow", highlight=False, soft_wrap=True)


def _set_step_aside(out: Path, step: Step, steps: Sequence[Step]) -> None:
    """Move what an earlier run of this step wrote, where the folder is the step's own and inside `out`."""
    target = step.out
    if target is None or not target.exists() or out not in target.parents:
        return
    others = [other.out for other in steps if other is not step and other.out is not None]
    if any(target == other or target in other.parents or other in target.parents for other in others):
        return
    aside = out / REPLACED / step.title
    if aside.exists():
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    aside.parent.mkdir(parents=True, exist_ok=True)
    target.rename(aside)
