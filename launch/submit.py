"""Submit a config to a Ray cluster as a job: upload the working directory, stream the log, return the job's outcome.

    python launch/submit.py configs/quickstart/rl.yaml --address http://127.0.0.1:8265
    python launch/submit.py configs/innovator_vl/rl.yaml --address http://head:8265 --root /shared/me --resume seed=1

The config is validated here first. The upload leaves out `runs/`, `data/`, `models/` and `outputs/`, so settings that
name files in them are made absolute: they are looked for under `--root`, a folder that every node sees (by default the
working directory, which fits a head on this machine or a shared home). The exit code is 0 only if the job succeeded.

A training run is submitted with `rl train --auto-resume`: whoever submits the same again, or retries the job, goes on
from the last checkpoint. Ctrl-C here and `ray job stop` give the run the time to write one.

Tokens whose environment variables the config or its mixture of rewards names are passed on where they are set here. Ray
keeps the environment of a job, and shows it to those whom the cluster lets see its jobs: a token that must not leave
this machine is set on the cluster instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from rl.commands import command_of, load
from rl.config.base import StrictModel
from rl.config.pipeline import PipelineConfig
from rl.config.rollout import RewardConfig
from rl.config.train import TrainConfig
from rl.errors import ConfigError, RLError
from rl.pipeline import prepare
from rl.reward_setup import mixture_of, secret_names

STATE_FOLDERS = ("runs", "data", "models", "outputs")
"""Top-level folders that are not uploaded; settings that name a file in them are made absolute."""

# Patterns as in .gitignore. The leading slash keeps `rl/data` and `rl/models`, which are code.
EXCLUDES = (
    *(f"/{name}" for name in STATE_FOLDERS),
    "/.venv*",
    "/.git",
    "/wandb",
    "__pycache__",
    ".*_cache",
    "*.egg-info",
    "*.log",
)
FORWARDED = ("HF_HUB_OFFLINE", "WANDB_MODE", "VLLM_LOGGING_LEVEL")
"""Environment variables that the job gets from here when they are set; others need --env."""
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_MARGIN_S = 180
"""Beyond `checkpoint.stop_within_s`: to write the checkpoint and close the actors."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_SECONDS = 1.0
INTERRUPTED = 130


class Client(Protocol):
    """What is used of ray.job_submission.JobSubmissionClient."""

    def submit_job(self, *, entrypoint: str, **options: Any) -> str: ...
    def get_job_status(self, job_id: str) -> Any: ...
    def get_job_info(self, job_id: str) -> Any: ...
    def tail_job_logs(self, job_id: str) -> Any: ...
    def stop_job(self, job_id: str) -> bool: ...


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(description="Submit a config to a Ray cluster as a job.", allow_abbrev=False)
    parser.add_argument("config", help="YAML file inside the working directory; its key `command` says what runs")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that replace the file's")
    parser.add_argument("--address", required=True, help="of the cluster's dashboard: http://HOST:8265")
    parser.add_argument("--resume", action="store_true", help="refuse to start a new run (train only)")
    parser.add_argument("--working-dir", default=".", help="folder to upload (default: the current one)")
    parser.add_argument("--root", help="where nodes find runs/, data/, models/, outputs/ (default: the working dir)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="environment of the job")
    parser.add_argument("--python", help="interpreter on the cluster (default: this one on this machine, else python)")
    parser.add_argument("--submission-id", help="name of the job (default: Ray makes one)")
    parser.add_argument("--entrypoint-num-cpus", type=float, help="CPUs for the driver")
    parser.add_argument("--entrypoint-num-gpus", type=float, help="GPUs for the driver")
    parser.add_argument("--entrypoint-memory", type=int, help="bytes for the driver")
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and return at once")
    return parser.parse_intermixed_args(argv)


def absolute_settings(config: StrictModel, root: Path) -> list[str]:
    """Overrides that make the paths into folders that are not uploaded absolute, under `root`."""
    return list(_absolute(config.model_dump(mode="json"), root, ""))


def build_entrypoint(args: argparse.Namespace, words: str, settings: Sequence[str]) -> str:
    """The shell command of the job: `python -m rl train CONFIG KEY=VALUE...`.

    Raises:
        ConfigError: the config lies outside the working directory, or `--resume` without `train`.
    """
    base = Path(args.working_dir).resolve()
    path = Path(args.config).resolve()
    if base not in path.parents:
        raise ConfigError(f"{path} is not inside {base}, which is what the job gets; set --working-dir")
    if args.resume and words != "train":
        raise ConfigError(f"--resume goes with a config of `rl train`; {args.config} is one of `rl {words}`")
    python = args.python or (sys.executable if urlsplit(args.address).hostname in LOOPBACK else "python")
    parts = [python, "-m", "rl", *words.split(), path.relative_to(base).as_posix()]
    if words == "train":
        parts.append("--resume" if args.resume else "--auto-resume")
    return shlex.join([*parts, *args.overrides, *settings])


def grading_root(config: StrictModel, path: str, root: Path) -> list[str]:
    """The overrides by which relative paths in mixtures of rewards are below `root`, where the config has some."""

    def unrooted(part: StrictModel) -> bool:
        rewards = getattr(part, "rewards", None)
        return isinstance(rewards, RewardConfig) and rewards.mixture is not None and rewards.root is None

    if not isinstance(config, PipelineConfig):
        return [f"rewards.root={json.dumps(root.as_posix())}"] if unrooted(config) else []
    steps = zip(config.steps, prepare(config, Path(path).parent), strict=True)
    return [
        f"steps.{number}.set={json.dumps(_moved(step.set, root) | {'rewards.root': root.as_posix()})}"
        for number, (step, prepared) in enumerate(steps)
        if unrooted(prepared.config)
    ]


def token_names(config: StrictModel, path: str, root: Path) -> list[str]:
    """The environment variables with tokens that a job of this config reads, in order of their names.

    Raises:
        ConfigError: a mixture of rewards that can't be used. One that only the cluster has is not looked at.
    """
    steps = prepare(config, Path(path).parent) if isinstance(config, PipelineConfig) else []
    names: set[str] = set()
    for part in [config, *(step.config for step in steps)]:
        rewards = getattr(part, "rewards", None)
        if not isinstance(rewards, RewardConfig):
            continue
        file = rewards.mixture and _moved(rewards.mixture, root)
        if file and not Path(file).is_file():
            print(f"{file} is not here: the keys of its judges are not passed on; see --env", file=sys.stderr)
            file = None
        rewards = rewards.model_copy(update={"mixture": file or None})
        names |= set(secret_names(rewards, mixture_of(rewards)).values())
    return sorted(names)


def stop_environment(config: StrictModel, path: str) -> dict[str, str]:
    """For how many seconds a job that is stopped may write its checkpoint; Ray's own 3 s before SIGKILL are too few.

    The actor that Ray runs the job under reads it, and has the job's environment.
    """
    steps = prepare(config, Path(path).parent) if isinstance(config, PipelineConfig) else []
    parts = [part for part in (config, *(step.config for step in steps)) if isinstance(part, TrainConfig)]
    limits = [part.checkpoint.stop_within_s for part in parts]
    return {STOP_WAIT: str(math.ceil(max(limits)) + STOP_MARGIN_S)} if limits else {}


def build_runtime_env(
    args: argparse.Namespace, tokens: Sequence[str] = (), more: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the job finds on every node: the uploaded folder and its environment variables, `tokens` and `more` among
    them. Those of --env come last."""
    wanted = (*FORWARDED, *tokens)
    env = {"PYTHONUNBUFFERED": "1"} | {name: os.environ[name] for name in wanted if name in os.environ}
    env |= more or {}
    for item in args.env:
        name, sep, value = item.partition("=")
        if not sep or not name:
            raise ConfigError(f"--env {item!r} is not of the form NAME=VALUE")
        env[name] = value
    return {"working_dir": str(Path(args.working_dir).resolve()), "excludes": list(EXCLUDES), "env_vars": env}


def build_options(args: argparse.Namespace) -> dict[str, Any]:
    """Resources of the entrypoint and the job's name, where given."""
    names = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory", "submission_id")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def follow(client: Client, job_id: str) -> int:
    """Print the job's log until it ends; 0 if it succeeded, 1 if not, 130 after Ctrl-C, which stops the job."""
    try:
        asyncio.run(_print_log(client, job_id))
        while (status := _status(client, job_id)) not in TERMINAL:
            time.sleep(POLL_SECONDS)  # the log stream ended or broke before the job did
    except KeyboardInterrupt:
        print(f"\nstopping job {job_id} ...", file=sys.stderr, flush=True)
        client.stop_job(job_id)
        return INTERRUPTED
    message = getattr(client.get_job_info(job_id), "message", None)
    print(f"job {job_id}: {status}" + (f": {message}" if message and status != "SUCCEEDED" else ""), file=sys.stderr)
    return 0 if status == "SUCCEEDED" else 1


def submit(args: argparse.Namespace, client: Client | None = None) -> int:
    """Validate, submit and follow; returns the exit code."""
    command = command_of(args.config)
    config = load(command, args.config, args.overrides)
    root = Path(args.root or args.working_dir).resolve()
    settings = absolute_settings(config, root) + grading_root(config, args.config, root)
    entrypoint = build_entrypoint(args, command.words, settings)
    tokens = token_names(config, args.config, root)
    runtime_env = build_runtime_env(args, tokens, stop_environment(config, args.config))
    for name in tokens:
        found = "passed on" if name in runtime_env["env_vars"] else "not set here: the job needs it from the cluster"
        print(f"token {name}: {found}", file=sys.stderr)
    client = client or _connect(args.address)
    job_id = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, **build_options(args))
    print(f"job {job_id}: {entrypoint}", file=sys.stderr, flush=True)
    if args.no_wait:
        print(job_id)
        return 0
    return follow(client, job_id)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 2 where nothing was submitted."""
    try:
        return submit(parse_args(sys.argv[1:] if argv is None else argv))
    except (RLError, ConnectionError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2


def _absolute(node: Any, root: Path, key: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _absolute(value, root, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        moved = [_moved(value, root) for value in node]
        if moved != node:
            yield f"{key}={json.dumps(moved)}"  # JSON is YAML; a default list has no element to set one by one
    elif (moved_value := _moved(node, root)) != node:
        yield f"{key}={json.dumps(moved_value)}"


def _moved(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {name: _moved(inner, root) for name, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, root) for inner in value]
    if not isinstance(value, str) or "\n" in value:
        return value
    path = PurePosixPath(value)
    inside = len(path.parts) > 1 and path.parts[0] in STATE_FOLDERS
    return (PurePosixPath(root.as_posix()) / path).as_posix() if inside else value


def _connect(address: str) -> Any:
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (RayError, RuntimeError) as exc:  # an unsupported version, or a missing or wrong token
        raise ConfigError(f"the cluster at {address} refuses this client: {exc}") from exc


async def _print_log(client: Client, job_id: str) -> None:
    from aiohttp import ClientError

    try:
        async for lines in client.tail_job_logs(job_id):
            print(lines, end="", flush=True)
    except (RuntimeError, ClientError) as exc:
        # The dashboard's web socket can close on a long job; the job goes on, and its status is polled.
        print(f"the log stream ended: {exc}", file=sys.stderr, flush=True)


def _status(client: Client, job_id: str) -> str:
    status = client.get_job_status(job_id)
    return str(getattr(status, "value", status))


if __name__ == "__main__":
    sys.exit(main())
