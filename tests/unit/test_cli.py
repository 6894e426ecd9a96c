"""The command line: arguments, exit codes and messages."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import sys
import types
from pathlib import Path

import pytest
import yaml

from rl import commands
from rl.cli import main
from rl.commands import Command, command_of, find, load, resolve
from rl.config.base import StrictModel
from rl.errors import ConfigError, DataError


class TrainLike(StrictModel):
    command: str = "train"
    out: str = "here"
    lr: float = 0.1


@pytest.fixture
def runner(monkeypatch):
    """`rl train` with a tiny config and a runner that notes its calls; `runner.found` is what its check finds."""
    module = types.ModuleType("fake_runner")
    module.calls, module.found = [], []
    module.run = lambda config, *, resume: module.calls.append((config, resume)) or Path("written/here")
    module.check = lambda config: module.found
    module.TrainLike = TrainLike
    monkeypatch.setitem(sys.modules, "fake_runner", module)
    table = {**commands.COMMANDS, "train": Command("train", "fake_runner:TrainLike", "fake_runner:run")}
    monkeypatch.setattr(commands, "COMMANDS", table)
    return module


@pytest.fixture
def rl(monkeypatch, capsys):
    """Run `rl ARGUMENTS`; returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("command: train\nlr: 0.5\n")
    return path


def test_a_command_calls_its_runner_with_the_resolved_config(rl, runner, config):
    code, out, _ = rl("train", config, "--resume", "lr=1e-3", "out=there")
    assert code == 0
    assert runner.calls == [(TrainLike(out="there", lr=0.001), True)]
    assert out == "written/here\n"


def test_a_retried_run_may_start_or_go_on(rl, runner, config):
    assert rl("train", config, "--auto-resume", "lr=1")[0] == 0
    assert runner.calls == [(TrainLike(lr=1.0), "auto")]
    code, _, err = rl("train", config, "--auto-resume", "--resume")
    assert code == 2 and "give one of them" in err and len(runner.calls) == 1


def test_a_runner_that_prints_its_outcome_has_the_last_word(rl, runner, config, monkeypatch):
    command = dataclasses.replace(commands.COMMANDS["train"], prints=True)
    monkeypatch.setattr(commands, "COMMANDS", {**commands.COMMANDS, "train": command})
    runner.run = lambda config, *, resume: print("report.html") or Path("written/here")
    assert rl("train", config)[:2] == (0, "report.html\n")


def test_dry_run_prints_the_config_and_runs_nothing(rl, runner, config):
    code, out, err = rl("train", config, "lr=2", "--dry-run")
    assert (code, runner.calls) == (0, [])
    assert yaml.safe_load(out) == {"command": "train", "out": "here", "lr": 2.0}
    assert err == f"{config}: nothing is missing for `rl train`\n"


def test_dry_run_tells_of_a_run_that_the_folder_holds(rl, runner, config, tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    code, _, err = rl("train", config, f"out={tmp_path}", "--dry-run")
    assert code == 0 and f"{tmp_path} holds a run already; start with --resume" in err
    for option in ("--resume", "--auto-resume"):
        assert "holds a run" not in rl("train", config, f"out={tmp_path}", "--dry-run", option)[2]


@pytest.mark.parametrize("option", ["--dry-run", "--resume"])
def test_a_problem_found_by_the_check_stops_the_command(rl, runner, config, option):
    runner.found = ["data.path /none does not exist"]
    code, _, err = rl("train", config, option)
    assert (code, runner.calls) == (2, [])
    assert "data.path /none does not exist" in err


def test_an_error_of_the_project_is_one_message(rl, runner, config):
    def refuse(config, *, resume):
        raise DataError("row 3 of a[b].parquet has no [bold]image[/bold]")

    runner.run = refuse
    code, _, err = rl("train", config)
    assert code == 2
    assert err == "error: row 3 of a[b].parquet has no [bold]image[/bold]\n"


def test_ctrl_c_is_one_line_and_exit_code_130(rl, runner, config, monkeypatch):
    def interrupted(config, *, resume):
        raise KeyboardInterrupt

    handlers = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.append((number, handler)))
    runner.run = interrupted
    assert rl("train", config) == (130, "", f"interrupted: rl train {config}\n")
    assert handlers == [(signal.SIGINT, signal.SIG_DFL)]


def test_a_traceback_on_request(runner, config, monkeypatch):
    monkeypatch.setenv("RL_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["rl", "train", str(config), "lrr=1"])
    with pytest.raises(ConfigError, match="did you mean lr"):
        main()


def test_a_full_disk_is_one_message(rl, runner, config):
    def fail(config, *, resume):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl")

    runner.run = fail
    code, _, err = rl("train", config)
    assert code == 2 and "could not write: No space left on device (runs/x/metrics.jsonl); make room" in err


def test_other_errors_keep_their_traceback(runner, config, monkeypatch):
    def fail(config, *, resume):
        raise KeyError("bug")

    runner.run = fail
    monkeypatch.setattr(sys, "argv", ["rl", "train", str(config)])
    with pytest.raises(KeyError, match="bug"):
        main()


@pytest.mark.parametrize(
    ("arguments", "said"), [(["trian"], "train"), (["data", "sinth"], "synth"), (["config", "shema"], "schema")]
)
def test_a_mistyped_command_names_the_nearest(rl, arguments, said):
    code, _, err = rl(*arguments)
    assert code == 2 and f"'{said}'" in err


def test_help_names_every_command(rl):
    code, out, _ = rl("--help")
    assert code == 0
    for name in ("data", "model", "sft", "curate", "train", "eval", "report", "pipeline", "config"):
        assert f" {name} " in out


def test_version(rl):
    from rl import __version__

    assert rl("--version")[:2] == (0, f"{__version__}\n")


def test_a_config_of_another_command_is_refused(rl, runner, config):
    code, _, err = rl("sft", config)
    assert code == 2 and "is a config of `rl train`, not of `rl sft`" in err


def test_config_show_resolves(rl, runner, config):
    code, out, _ = rl("config", "show", config, "out=x")
    assert code == 0 and yaml.safe_load(out) == {"command": "train", "out": "x", "lr": 0.5}


def test_config_check_tells_good_from_bad(rl, runner, config, tmp_path):
    bad, nameless = tmp_path / "bad.yaml", tmp_path / "nameless.yaml"
    bad.write_text("command: train\nlr: fast\n")
    nameless.write_text("lr: 1\n")
    code, out, err = rl("config", "check", config, bad, nameless)
    assert code == 2 and "2 of 3 files" in err
    assert f"{config}: ok (rl train)" in out
    assert "lr: Input should be a valid number" in out and "(got 'fast')" in out
    assert "begin it with `command: NAME`" in out


def test_config_check_accepts_what_a_pipeline_fills(rl, runner, tmp_path):
    path = tmp_path / "step.yaml"
    path.write_text('command: train\nout: "{out}/rl"\nlr: "{seed}"\n')
    code, out, _ = rl("config", "check", path)
    assert code == 0 and "a step of a pipeline, which fills out, lr: it can't run without values" in out
    code, _, err = rl("train", path)
    assert code == 2 and "give the values here: out=VALUE lr=VALUE" in err and "`rl pipeline`" in err
    other, alone = tmp_path / "all.yaml", tmp_path / "broken.yaml"
    other.write_text("command: pipeline\nout: runs/mine\nsteps: [{run: train, config: step.yaml}]\n")
    alone.write_text("steps: [")
    code, _, err = rl("train", path)
    assert code == 2 and f"Run `rl pipeline {other}`; use the resolved file" in err and "runs/mine/configs/" in err
    assert rl("train", path, "out=o", "lr=1")[0] == 0
    assert runner.calls == [(TrainLike(out="o", lr=1.0), False)]


def test_config_schema_is_json(rl, runner):
    code, out, _ = rl("config", "schema", "train")
    assert code == 0 and json.loads(out)["properties"]["lr"] == {"default": 0.1, "title": "Lr", "type": "number"}


def test_an_unknown_command_in_a_file_lists_the_known(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("command: trian\n")
    with pytest.raises(ConfigError, match=r"no command 'trian'; did you mean train\? known: data-synth, model-init"):
        command_of(path)


def test_a_command_may_be_named_as_typed_or_as_in_a_file():
    assert find("data synth") is find("data-synth")


def test_a_missing_dependency_is_named(monkeypatch, tmp_path):
    (tmp_path / "needs_more.py").write_text("import no_such_package_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="needs no_such_package_here, which is not installed"):
        resolve("needs_more:run")
    with pytest.raises(ConfigError, match=r"no rl\.nowhere"):
        resolve("rl.nowhere:run")


def test_values_come_before_overrides(runner, config):
    loaded = load(find("train"), config, ["lr=3"], values={"lr": 2, "out": "{x}"}, variables={"x": "filled"})
    assert loaded == TrainLike(lr=3.0, out="filled")


def test_report_of_a_folder_that_holds_no_run(rl, tmp_path):
    code, _, err = rl("report", tmp_path)
    assert code == 2 and str(tmp_path) in err
    (tmp_path / "curate").mkdir()  # as configs/ has one
    code, _, err = rl("report", tmp_path)
    assert code == 2 and "holds no run and no pipeline" in err
    assert not (tmp_path / "report.html").exists()


VERL = {"prompt": [{"role": "user", "content": "2+2?"}], "reward_model": {"style": "rule", "ground_truth": "4"}}


def test_inspect_says_what_a_file_of_another_layout_is(rl, tmp_path):
    path = tmp_path / "verl.jsonl"
    path.write_text(json.dumps(VERL) + "\n")
    code, out, err = rl("data", "inspect", path)
    assert code == 2 and "has no usable row" in err
    assert "columns of the verl layout" in out and "--from verl" in out
    code, out, _ = rl("data", "inspect", path, "--from", "verl")
    assert code == 0 and "1 usable rows" in out


def test_convert_names_the_flag_that_is_missing(rl, tmp_path):
    path, target = tmp_path / "verl.jsonl", tmp_path / "back.parquet"
    path.write_text(json.dumps(VERL) + "\n")
    code, _, err = rl("data", "convert", path, target)
    assert code == 2 and f"`rl data convert {path} OUT.parquet --from verl`" in err and "skip" not in err
    assert rl("data", "convert", path, target, "--from", "verl")[0] == 0
    path.write_text('{"id": "a", "problem": "2+2?"}\n')
    code, _, err = rl("data", "convert", path, target)
    assert code == 2 and "--skip-bad" in err


@pytest.mark.parametrize("key", [key for key in commands.COMMANDS if key != "pipeline"])
def test_every_config_model_says_its_command(key):
    model = resolve(commands.COMMANDS[key].config)
    assert model.model_fields["command"].default == key


@pytest.mark.parametrize(("step", "keys"), [("clean", "data: d"), ("select", "candidates: d\nattempts: [d]")])
def test_a_step_is_sent_to_ray_by_an_option(rl, tmp_path, monkeypatch, step, keys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "c.yaml").write_text(f"command: curate-{step}\nout: o\n{keys}\n")
    assert "backend: local" in rl("curate", step, "c.yaml", "--dry-run")[1]
    assert "backend: ray" in rl("curate", step, "c.yaml", "--dry-run", "--ray")[1]
