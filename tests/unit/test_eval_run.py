"""`rl eval`: what it refuses to write over, and the table."""

from __future__ import annotations

import pytest

from rl.config.eval import EvalConfig
from rl.errors import ConfigError
from rl.eval import run as eval_run


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Of an evaluation whose engines would be started next."""

    def started(*_: object) -> None:
        raise RuntimeError("engines would start here")

    monkeypatch.setattr(eval_run, "connect", started)
    return EvalConfig(model="m", data="d", out=str(tmp_path / "out"))


def test_a_result_is_not_overwritten_unless_asked(config, tmp_path):
    evals = tmp_path / "out" / "evals"
    evals.mkdir(parents=True)
    (evals / "step_000000.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a result already; set another `out`, or replace it with --overwrite"):
        eval_run.run(config)
    with pytest.raises(RuntimeError, match="engines would start"):
        eval_run.run(config, overwrite=True)


def test_the_folder_of_a_training_run_is_never_written_to(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds a training run"):
        eval_run.run(config, overwrite=True)
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_the_table_counts_prompts_and_all_of_them(capsys):
    task = {"mean_at_2": 0.5, "pass_at_2": 1.0, "length_mean": 7.25}
    result = {
        "k": 2,
        "mean_at_2": 0.5,
        "pass_at_2": 1.0,
        "tasks": {"a": task | {"count": 30}, "b": task | {"count": 4}},
    }
    eval_run._print(result)
    out = capsys.readouterr().out
    assert "prompts" in out
    assert next(line for line in out.splitlines() if " all " in line).split("│")[2].strip() == "34"
