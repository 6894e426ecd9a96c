from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rl.errors import DataError
from rl.metrics import files


def test_torn_last_line_is_left_out_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    table = files.read_jsonl(path)
    assert table.rows == ({"step": 1, "loss": 0.5},)
    assert table.note == "metrics.jsonl: the last line (line 2) is torn and was left out"


def test_whole_last_line_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert files.read_jsonl(path) == files.Table(({"step": 1}, {"step": 2}))


def test_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        files.read_jsonl(path)


def test_a_step_that_was_run_again_counts_once(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": None}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = files.read_metrics(tmp_path).rows
    assert [row["step"] for row in read] == [1, 2, 3]
    assert files.column(read, "loss") == ([1, 2], [1.0, 2.0])


def test_sources_leave_out_the_mean() -> None:
    rows = [{"step": 1, "reward/mean": 0.0, "reward/b": 0.1}, {"step": 2, "reward/a": 0.2}]
    assert files.sources(rows, "reward") == ["a", "b"]


def test_a_group_in_flight_at_a_checkpoint_takes_its_later_fate(tmp_path: Path) -> None:
    rows = [
        {"uid": 1, "sample_id": "a", "fate": "in_flight"},
        {"uid": 2, "sample_id": "b", "fate": "filtered", "reason": "zero variance", "admitted_version": 3, "step": 4},
        {"uid": 1, "sample_id": "a", "fate": "trained"},
    ]
    (tmp_path / "fates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = files.read_fates(tmp_path).rows
    assert [(row.uid, row.fate) for row in read] == [(1, "trained"), (2, "filtered")]
    assert read[1] == files.FateRow(2, "b", "filtered", "zero variance", 3, 4)


def test_unknown_fate_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"'lost'.*trained, filtered, failed, stale, in_flight"):
        files.parse_fate({"uid": 1, "sample_id": "a", "fate": "lost"})


def _evaluation() -> dict[str, Any]:
    return {
        "step": 5,
        "k": 4,
        "mean_at_4": 0.5,
        "pass_at_4": 0.75,
        "tasks": {"chart": {"mean_at_4": 0.5, "pass_at_4": 0.75, "count": 2, "length_mean": 9.0}},
        "examples": [
            {"id": "x", "source": "chart", "problem": "?", "answers": ["1"], "completions": ["1"], "rewards": [1.0]}
        ],
    }


def test_evaluation_is_typed() -> None:
    result = files.parse_eval(_evaluation())
    assert (result.step, result.k, result.mean, result.passed) == (5, 4, 0.5, 0.75)
    assert result.tasks["chart"] == files.EvalTask(0.5, 0.75, 2, 9.0)
    assert result.examples[0].answers == ("1",)


@pytest.mark.parametrize("key", ["step", "k", "mean_at_4", "tasks"])
def test_evaluation_without_a_key_is_an_error(key: str) -> None:
    raw = _evaluation()
    del raw[key]
    with pytest.raises(DataError, match=f"lacks '{key}'"):
        files.parse_eval(raw)


def test_evaluation_with_fewer_rewards_than_completions_is_an_error() -> None:
    raw = _evaluation()
    raw["examples"][0]["rewards"] = []
    with pytest.raises(DataError, match="1 completions but 0 rewards"):
        files.parse_eval(raw)


def test_find_run_tells_run_and_pipeline_apart(pipeline: Path, tmp_path: Path) -> None:
    assert files.find_run(pipeline) == (pipeline / "rl", pipeline)
    assert files.find_run(pipeline / "rl") == (pipeline / "rl", None)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds neither"):
        files.find_run(empty)
    with pytest.raises(DataError, match="is not a folder"):
        files.find_run(tmp_path / "nowhere")
