"""`launch/submit.py`: the job that it builds, and what it makes of the job's end. No cluster is used."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pathspec import PathSpec

ROOT = Path(__file__).parents[2]


def _load():
    spec = importlib.util.spec_from_file_location("launch_submit", ROOT / "launch" / "submit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


submit = _load()


class Client:
    """A cluster on which every job ends in `end`."""

    def __init__(self, end="SUCCEEDED", log=("line 1\n", "line 2\n"), interrupt=False):
        self.end, self.log, self.interrupt = end, log, interrupt
        self.submitted, self.stopped = [], []

    def submit_job(self, **options):
        self.submitted.append(options)
        return "job-1"

    async def tail_job_logs(self, job_id):
        for line in self.log:
            yield line
        if self.interrupt:
            raise KeyboardInterrupt

    def get_job_status(self, job_id):
        return SimpleNamespace(value=self.end)

    def get_job_info(self, job_id):
        return SimpleNamespace(message="the driver said why")

    def stop_job(self, job_id):
        self.stopped.append(job_id)
        return True


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a config of `rl sft`."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sft.yaml").write_text(
        "command: sft\nmodel: models/base\nout: runs/sft\nsteps: 5\n"
        "data: {path: data/train.parquet, sources: [data/x, b]}\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in submit.FORWARDED:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def parse(*extra):
    return submit.parse_args(["configs/sft.yaml", "--address", "http://head:8265", *extra])


def test_the_entrypoint_is_the_same_command(folder):
    args = parse("seed=1", "--entrypoint-num-cpus", "0.5", "data.heldout=a b")
    assert submit.build_entrypoint(args, "sft", ["out=/x"]) == (
        "python -m rl sft configs/sft.yaml seed=1 'data.heldout=a b' out=/x"
    )
    assert submit.build_options(args) == {"entrypoint_num_cpus": 0.5}


def test_resume_and_python_are_passed_on(folder):
    entrypoint = submit.build_entrypoint(parse("--resume", "--python", "/opt/py"), "train", [])
    assert entrypoint == "/opt/py -m rl train configs/sft.yaml --resume"


def test_a_training_run_may_be_submitted_again(folder):
    entrypoint = submit.build_entrypoint(parse("seed=1"), "train", [])
    assert entrypoint == "python -m rl train configs/sft.yaml --auto-resume seed=1"


def test_a_job_that_is_stopped_has_the_time_of_the_config(graded):
    """90.5 s and a margin of 180 s; what the user says comes first, and a job that is no training has Ray's own."""

    def env(config, *extra):
        client = Client()
        assert submit.submit(submit.parse_args([config, "--address", "http://head:8265", *extra]), client) == 0
        return client.submitted[0]["runtime_env"]["env_vars"].get("RAY_JOB_STOP_WAIT_TIME_S")

    assert env("configs/rl.yaml", "checkpoint.stop_within_s=90.5") == "271"
    assert env("configs/pipeline.yaml") == "300"
    assert env("configs/rl.yaml", "--env", "RAY_JOB_STOP_WAIT_TIME_S=7") == "7"
    assert env("configs/sft.yaml") is None


def test_a_head_on_this_machine_uses_this_interpreter(folder):
    args = submit.parse_args(["configs/sft.yaml", "--address", "http://127.0.0.1:8265"])
    assert shlex.split(submit.build_entrypoint(args, "sft", []))[0] == sys.executable


def test_settings_that_are_not_uploaded_become_absolute(folder):
    client = Client()
    assert submit.submit(parse("--root", "/shared/me", "data.heldout=/elsewhere/h.parquet"), client) == 0
    words = shlex.split(client.submitted[0]["entrypoint"])
    assert words[:6] == ["python", "-m", "rl", "sft", "configs/sft.yaml", "data.heldout=/elsewhere/h.parquet"]
    assert words[6:] == [
        'model="/shared/me/models/base"',
        'out="/shared/me/runs/sft"',
        'data.path="/shared/me/data/train.parquet"',
        'data.sources=["/shared/me/data/x", "b"]',
    ]


def test_what_the_job_runs_is_a_valid_command(folder):
    """The overrides that make paths absolute are read back as they were meant."""
    from rl.commands import find, load

    client = Client()
    submit.submit(parse(), client)
    config = load(find("sft"), "configs/sft.yaml", shlex.split(client.submitted[0]["entrypoint"])[5:])
    assert config.data.path == f"{folder}/data/train.parquet"
    assert config.data.sources == (f"{folder}/data/x", "b")


def test_the_runtime_env(folder, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    env = submit.build_runtime_env(parse("--env", "A=b=c"))
    assert env["working_dir"] == str(folder)
    assert env["env_vars"] == {"PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline", "A": "b=c"}


@pytest.mark.parametrize("path", ["rl/data/store.py", "rl/models/init.py", "configs/a.yaml", "rewards/base.py"])
def test_code_is_uploaded(path):
    assert not PathSpec.from_lines("gitwildmatch", submit.EXCLUDES).match_file(path)


@pytest.mark.parametrize(
    "path",
    [".venv", ".venv/bin/python", ".venv-gpu/x", "runs", "runs/a/b", "data/t.parquet", "models/m", ".git", ".git/HEAD"]
    + ["rl/__pycache__/a.pyc", ".mypy_cache", "wandb/x"],
)
def test_state_is_not_uploaded(path):
    assert PathSpec.from_lines("gitwildmatch", submit.EXCLUDES).match_file(path)


@pytest.mark.parametrize(("end", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_the_exit_code_is_the_outcome_of_the_job(folder, capsys, end, code):
    assert submit.submit(parse(), Client(end)) == code
    out, err = capsys.readouterr()
    assert out == "line 1\nline 2\n"
    assert ("the driver said why" in err) == (code == 1)


def test_ctrl_c_stops_the_job(folder, capsys):
    client = Client(interrupt=True)
    assert submit.submit(parse(), client) == 130
    assert client.stopped == ["job-1"]
    assert "stopping job job-1" in capsys.readouterr().err


def test_no_wait_prints_the_id(folder, capsys):
    assert submit.submit(parse("--no-wait"), Client("FAILED")) == 0
    assert capsys.readouterr().out == "job-1\n"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["seeed=1"], "seeed: unknown key; did you mean seed?"),
        (["--resume"], "--resume goes with a config of `rl train`"),
        (["--working-dir", "configs/.."], None),
        (["--working-dir", "/usr"], "is not inside /usr"),
        (["--env", "A"], "not of the form NAME=VALUE"),
    ],
)
def test_nothing_is_submitted_that_can_not_run(folder, capsys, monkeypatch, extra, said):
    client = Client()
    monkeypatch.setattr(submit, "_connect", lambda address: client)
    code = submit.main(["configs/sft.yaml", "--address", "http://head:8265", *extra])
    assert (code, len(client.submitted)) == ((0, 1) if said is None else (2, 0))
    assert said is None or said in capsys.readouterr().err


MIXTURE = """
judges:
  default: {url: 'http://127.0.0.1:9', model: m, api_key_env: JUDGE_KEY, cache: runs/judge.sqlite}
  free: {url: 'http://127.0.0.1:9', model: m}
default: {reward: {name: a, verifier: auto}}
"""


@pytest.fixture
def graded(folder, monkeypatch):
    """The working directory with a config of `rl train` whose graders need two tokens."""
    (folder / "configs" / "mixture.yaml").write_text(MIXTURE)
    (folder / "configs" / "rl.yaml").write_text(
        "command: train\nmodel: models/m\nout: runs/rl\nsteps: 1\ndata: {train: data/t.parquet}\n"
        "rewards: {mixture: configs/mixture.yaml, url: 'http://rewards:8000', token_env: REWARDS_KEY}\n"
    )
    (folder / "configs" / "pipeline.yaml").write_text(
        "command: pipeline\nout: runs/p\nsteps: [{run: train, config: rl.yaml, set: {out: '{out}/rl'}}]\n"
    )
    monkeypatch.setenv("JUDGE_KEY", "s3cret-judge")
    monkeypatch.delenv("REWARDS_KEY", raising=False)
    return folder


@pytest.mark.parametrize("config", ["configs/rl.yaml", "configs/pipeline.yaml"])
def test_tokens_that_configs_name_are_passed_on_and_never_shown(graded, capsys, monkeypatch, config):
    def job(*extra):
        client = Client()
        assert submit.submit(submit.parse_args([config, "--address", "http://head:8265", *extra]), client) == 0
        return client.submitted[0]["runtime_env"]["env_vars"], client.submitted[0]["entrypoint"]

    env, entrypoint = job()
    assert env == {"PYTHONUNBUFFERED": "1", "JUDGE_KEY": "s3cret-judge", "RAY_JOB_STOP_WAIT_TIME_S": "300"}
    out, err = capsys.readouterr()
    assert "token JUDGE_KEY: passed on" in err and "token REWARDS_KEY: not set here" in err
    assert "s3cret" not in out + err + entrypoint
    monkeypatch.setenv("REWARDS_KEY", "s3cret-too")
    assert job()[0]["REWARDS_KEY"] == "s3cret-too"
    assert job("--env", "REWARDS_KEY=other")[0]["REWARDS_KEY"] == "other"
    out, err = capsys.readouterr()
    assert "not set here" not in err and "s3cret" not in out + err


def test_the_caches_of_judges_are_under_the_root(graded):
    client = Client()
    args = ["configs/rl.yaml", "--address", "http://head:8265", "--root", "/shared/me"]
    submit.submit(submit.parse_args(args), client)
    assert 'rewards.root="/shared/me"' in shlex.split(client.submitted[0]["entrypoint"])


def test_the_caches_of_a_pipeline_are_under_the_root(graded):
    """The overrides of the job, read back, give a step that has its own settings and the root."""
    from rl.commands import find, load
    from rl.pipeline import prepare

    client = Client()
    args = ["configs/pipeline.yaml", "--address", "http://head:8265", "--root", "/shared/me"]
    submit.submit(submit.parse_args(args), client)
    overrides = shlex.split(client.submitted[0]["entrypoint"])[5:]
    (step,) = prepare(load(find("pipeline"), "configs/pipeline.yaml", overrides), graded / "configs")
    assert (step.config.rewards.root, step.config.out) == ("/shared/me", "/shared/me/runs/p/rl")


def test_a_mixture_that_only_the_cluster_has(graded, capsys):
    args = ["configs/rl.yaml", "--address", "http://head:8265", "--root", "/shared/me", "rewards.mixture=data/m.yaml"]
    assert submit.submit(submit.parse_args(args), Client()) == 0
    assert "/shared/me/data/m.yaml is not here" in capsys.readouterr().err
