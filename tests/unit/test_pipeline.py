"""The pipeline runner: what it fills, what it runs, what it records."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from rl import pipeline
from rl.commands import COMMANDS, load
from rl.config.base import load_config
from rl.config.pipeline import PipelineConfig
from rl.errors import ConfigError
from rl.pipeline import check_engines, prepare, run
from rl.rollout.sglang_server import PYTHON

QUICKSTARTS = Path(__file__).parents[2] / "configs" / "quickstart"
MODEL = """
command: model-init
out: "{out}/model"
seed: "{seed}"
tokenizer_corpus: "{corpus}"
"""
SFT = """
command: sft
model: "{out}/model"
out: "{out}/unset"
seed: "{seed}"
steps: 5
data: {path: "{corpus}"}
"""
PIPELINE = """
command: pipeline
out: OUT
seed: 7
vars: {corpus: "{out}/data/train.parquet"}
steps:
  - {run: model init, config: init.yaml}
  - {run: sft, config: sft.yaml, name: sft-1, set: {out: "{out}/sft-1", data.heldout: h}}
  - {run: sft, config: sft.yaml, name: sft-2, set: {out: "{out}/sft-2", model: "{out}/sft-1", data: {path: p}}}
"""


@pytest.fixture
def files(tmp_path):
    """A pipeline of three steps; returns its file."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "init.yaml").write_text(MODEL)
    (folder / "sft.yaml").write_text(SFT)
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE.replace("OUT", str(tmp_path / "out")))
    return path


@pytest.fixture
def started(monkeypatch):
    """Instead of starting processes, note the arguments and write the step's output; `codes` are given out in turn."""

    class Started(list):
        codes: list[int] = []

    calls = Started()

    def note(arguments):
        calls.append(list(arguments))
        config = yaml.safe_load(Path(arguments[-1]).read_text())
        Path(config["out"]).mkdir(parents=True, exist_ok=True)
        (Path(config["out"]) / f"made-by-{len(calls)}").touch()
        return calls.codes.pop(0) if calls.codes else 0

    monkeypatch.setattr(pipeline, "_run_process", note)
    return calls


def go(path, **options):
    text = io.StringIO()
    code = run(load_config(PipelineConfig, path), path.parent, console=Console(file=text, width=120), **options)
    return code, text.getvalue()


def records(tmp_path):
    return json.loads((tmp_path / "out" / "pipeline.json").read_text())


def test_names_in_braces_are_filled_in_the_steps(files, tmp_path):
    out = str(tmp_path / "out")
    init, first, second = (
        step.config.model_dump() for step in prepare(load_config(PipelineConfig, files), files.parent)
    )
    assert (init["out"], init["seed"], init["tokenizer_corpus"]) == (f"{out}/model", 7, f"{out}/data/train.parquet")
    assert (first["out"], first["data"]["path"], first["data"]["heldout"]) == (
        f"{out}/sft-1",
        f"{out}/data/train.parquet",
        "h",
    )
    assert (second["model"], second["data"]["path"], second["data"]["heldout"]) == (f"{out}/sft-1", "p", None)


def test_the_steps_run_in_order_and_are_recorded(files, tmp_path, started):
    code, text = go(files)
    configs = tmp_path / "out" / "configs"
    assert code == 0
    assert started == [
        ["-m", "rl", "model", "init", str(configs / "01-init.yaml")],
        ["-m", "rl", "sft", str(configs / "02-sft-1.yaml")],
        ["-m", "rl", "sft", str(configs / "03-sft-2.yaml")],
    ]
    assert [(r["step"], r["exit_code"]) for r in records(tmp_path)] == [("init", 0), ("sft-1", 0), ("sft-2", 0)]
    assert all(0 <= r["seconds"] < 5 for r in records(tmp_path))
    assert "2/3 sft-1  (rl sft)  0:00 elapsed" in text


def test_the_first_failure_ends_it_with_its_code(files, tmp_path, started):
    started.codes = [0, 3]
    code, text = go(files)
    assert (code, len(started)) == (3, 2)
    assert [(r["step"], r["exit_code"]) for r in records(tmp_path)] == [("init", 0), ("sft-1", 3)]
    assert "--from sft-1" in text


def test_it_goes_on_at_a_step(files, tmp_path, started):
    started.codes = [0, 3]
    go(files)
    code, _ = go(files, start="sft-1", until="2")
    assert code == 0
    assert [call[-1].rpartition("/")[2] for call in started[2:]] == ["02-sft-1.yaml"]
    assert [(r["step"], r["exit_code"]) for r in records(tmp_path)] == [("init", 0), ("sft-1", 0)]
    out = tmp_path / "out"
    assert [path.name for path in (out / "sft-1").iterdir()] == ["made-by-3"]
    assert [path.name for path in (out / "replaced" / "sft-1").iterdir()] == ["made-by-2"]
    assert (out / "model" / "made-by-1").exists()


def test_a_second_run_sets_the_first_aside(files, tmp_path, started):
    go(files)
    go(files)
    code, text = go(files)
    assert code == 0 and f"{tmp_path / 'out'}.2" in text.replace("\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "out", "out.1", "out.2"]
    assert [(tmp_path / name / "model" / f"made-by-{n}").exists() for name, n in (("out.1", 1), ("out.2", 4))] == [
        True,
        True,
    ]


def test_a_folder_that_another_step_writes_into_is_not_moved(tmp_path, files, started):
    text = files.read_text().replace('{out: "{out}/sft-2"', '{out: "{out}/sft-1/inner"')
    files.write_text(text)
    go(files)
    go(files, start="sft-1", until="sft-1")
    assert not (tmp_path / "out" / "replaced").exists()


def test_every_step_is_validated_before_the_first_runs(files, started):
    files.write_text(files.read_text().replace("data.heldout: h", "data.heldoutt: h"))
    with pytest.raises(ConfigError, match=r"step 2 \(sft-1\).*\n.*data\.heldoutt: unknown key; did you mean heldout"):
        go(files)
    assert started == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "sft"}, "no step 'sft'; the steps are 1 init, 2 sft-1, 3 sft-2"),
        ({"start": "3", "until": "init"}, "comes after"),
    ],
)
def test_unknown_or_crossed_steps(files, started, options, said):
    with pytest.raises(ConfigError, match=said):
        go(files, **options)
    assert started == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: sft-2", "name: sft-1", "named sft-1 more than once"),
        ("name: sft-2", "name: a/b", "becomes a file name"),
        ("vars: {corpus:", "vars: {seed: 1, corpus:", "'seed' is set by the pipeline itself"),
        ("run: model init", "run: model unit", "Input should be 'data synth'"),
    ],
)
def test_a_pipeline_file_that_makes_no_sense(files, old, new, said):
    text = files.read_text()
    assert old in text
    files.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        load_config(PipelineConfig, files)


def test_a_var_that_no_step_uses(files, started):
    files.write_text(files.read_text().replace("vars: {corpus:", "vars: {korpus: x, corpus:"))
    with pytest.raises(ConfigError, match=r"vars\.korpus is in no step as {korpus}.*; did you mean corpus\?"):
        go(files)
    assert started == []


@pytest.mark.parametrize("file", ["pipeline.yaml", "long/pipeline.yaml"])
def test_one_key_sets_the_engine_of_a_quickstart(file, monkeypatch, tmp_path):
    """In all steps that start one; the environment that it needs is looked for before the first step."""
    path = QUICKSTARTS / file
    for backend in ("vllm", "sglang"):
        steps = prepare(load(COMMANDS["pipeline"], path, [f"vars.backend={backend}"]), path.parent)
        assert {s.title: s.config.rollout.engine.backend for s in steps if hasattr(s.config, "rollout")} == {
            "curate": backend,
            "rl": backend,
        }
    python = tmp_path / "python"
    monkeypatch.setenv(PYTHON, str(python))
    with pytest.raises(ConfigError, match=r"step 6 \(curate\) generates with SGLang.*make install-sglang"):
        check_engines(steps)
    check_engines(steps[:5])
    python.touch()
    check_engines(steps)


def test_a_missing_engine_is_told_before_the_first_step(files, tmp_path, started, monkeypatch):
    (files.parent / "eval.yaml").write_text(
        "model: m\ndata: d\nout: '{out}/eval'\nrollout: {engine: {backend: sglang}}\n"
    )
    files.write_text(files.read_text() + "  - {run: eval, config: eval.yaml}\n")
    monkeypatch.setenv(PYTHON, str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"step 4 \(eval\) generates with SGLang"):
        go(files)
    assert started == []
    assert go(files, until="sft-2")[0] == 0
    # Workers of a cluster look for it where they run.
    files.write_text(files.read_text().replace("config: eval.yaml", "config: eval.yaml, set: {ray_address: auto}"))
    assert go(files)[0] == 0


def test_exit_codes_of_processes():
    assert pipeline._run_process(["-c", "raise SystemExit(5)"]) == 5
    assert pipeline._run_process(["-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9


def test_ctrl_c_waits_for_the_child(tmp_path, monkeypatch):
    """The child gets the same Ctrl-C from the terminal; here it ends by itself once the file is there."""
    done, gate = tmp_path / "done", tmp_path / "gate"
    code = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
    code += f"pathlib.Path({str(done)!r}).touch()"
    wait, waits = pipeline.subprocess.Popen.wait, []

    def interrupted(process, *arguments, **keywords):
        waits.append(process)
        if len(waits) == 1:
            threading.Timer(0.05, gate.touch).start()
            raise KeyboardInterrupt
        return wait(process, *arguments, **keywords)

    monkeypatch.setattr(pipeline.subprocess.Popen, "wait", interrupted)
    assert pipeline._run_process(["-c", code]) == 130
    assert done.exists()


def test_a_real_step_from_the_command_line(tmp_path, monkeypatch, capsys):
    from rl.cli import main

    (tmp_path / "data.yaml").write_text(
        'out: "{out}/data"\nseed: "{seed}"\nimage_size: 32\nsplits: {train: {count: {arithmetic: 4}}}\n'
    )
    (tmp_path / "pipeline.yaml").write_text(
        "command: pipeline\nout: unused\nsteps:\n  - {run: data synth, config: data.yaml}\n"
    )
    out = tmp_path / "made"
    arguments = ["pipeline", str(tmp_path / "pipeline.yaml"), "--out", str(out), "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["rl", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (out / "data" / "train.parquet").exists()
    assert yaml.safe_load((out / "configs" / "01-data.yaml").read_text())["seed"] == 3
    assert json.loads((out / "pipeline.json").read_text())[0]["exit_code"] == 0
