from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from rl.errors import LedgerError
from rl.metrics import files
from rl.metrics.summary import build_summary, count_fates, fates_line, print_final


def test_summary_of_a_run_by_hand(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "time_s": 10.0, "probe/logprob_delta_mean": 2e-6, "probe/logprob_delta_max": 5e-5},
        {"step": 2, "time_s": 20.0, "probe/logprob_delta_mean": 3e-6, "probe/logprob_delta_max": 4e-5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fates = ["trained", "trained", "filtered", "in_flight"]
    lines = [json.dumps({"uid": uid, "sample_id": "s", "fate": fate}) + "\n" for uid, fate in enumerate(fates)]
    (tmp_path / "fates.jsonl").write_text("".join(lines))
    (tmp_path / "timeline.jsonl").write_text('{"actor": "rollout-0", "phase": "eval", "start": 20, "end": 27.5}\n')
    (tmp_path / "evals").mkdir()
    for step, mean in ((0, 0.25), (1, 0.9), (2, 0.5)):
        task = {"mean_at_8": mean, "pass_at_8": 0.75, "count": 4, "length_mean": 20.0}
        result = {"step": step, "k": 8, "mean_at_8": mean, "pass_at_8": 0.75, "tasks": {"chart": task}}
        (tmp_path / "evals" / f"step_{step:06d}.json").write_text(json.dumps(result))
    expected_task = {"pass_at_8": 0.75, "count": 4, "length_mean": 20.0}
    expected = {
        "before": {"mean_at_8": 0.25, "pass_at_8": 0.75, "tasks": {"chart": {"mean_at_8": 0.25, **expected_task}}},
        "after": {"mean_at_8": 0.5, "pass_at_8": 0.75, "tasks": {"chart": {"mean_at_8": 0.5, **expected_task}}},
        "fates": {"admitted": 4, "trained": 2, "filtered": 1, "failed": 0, "stale": 0, "in_flight": 1},
        "max_probe_logprob_delta": 3e-6,
        "max_probe_logprob_delta_token": 5e-5,
        "wall_seconds": 27.5,
        "steps": 2,
    }
    assert build_summary(tmp_path) == expected
    assert json.loads((tmp_path / "summary.json").read_text()) == expected


def test_run_that_stopped_early_has_no_after(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "fates.jsonl").write_text("")
    summary = build_summary(tmp_path)
    assert summary["before"] is None and summary["after"] is None and summary["max_probe_logprob_delta"] is None
    assert summary["steps"] == 0 and summary["fates"]["admitted"] == 0


def test_fates_that_do_not_add_up_are_an_error() -> None:
    rows = [files.FateRow(1, "a", "trained", None, 0, 1), files.FateRow(1, "a", "stale", None, 0, 1)]
    with pytest.raises(LedgerError, match="1 admissions but 2 fates"):
        count_fates(rows)


def test_fates_line() -> None:
    fates = {"admitted": 3, "trained": 2, "filtered": 0, "failed": 0, "stale": 0, "in_flight": 1}
    assert fates_line(fates) == "admitted 3 = trained 2 + filtered 0 + failed 0 + stale 0 + in flight 1"


def test_last_lines_of_a_pipeline(pipeline: Path) -> None:
    stream = io.StringIO()
    report = print_final(pipeline, Console(file=stream, width=110))
    lines = stream.getvalue().splitlines()
    assert report == pipeline / "report.html" and report.exists()
    assert lines[-1] == str(report)
    assert "admitted 1212 = trained 960 + filtered 240 + failed 2 + stale 6 + in flight 4" in lines
    assert "120 steps, 10 min 00 s" in lines  # 120 + 480.5 s
    (counting,) = [line for line in lines if "counting" in line]
    for cell in ("25.0", "60.0", "+35.0", "75.0", "90.0", "+15.0"):
        assert cell in counting
    saved = json.loads((pipeline / "summary.json").read_text())
    assert saved["wall_seconds"] == 600.5 and saved["rl_wall_seconds"] == 480.0
    assert json.loads((pipeline / "rl" / "summary.json").read_text())["wall_seconds"] == 480.0
    stream = io.StringIO()
    print_final(pipeline, Console(file=stream, width=110), brief=True)
    assert stream.getvalue().splitlines() == ["120 steps, 10 min 00 s", str(report)]
    assert saved["before"]["mean_at_8"] == 0.35 and saved["after"]["mean_at_8"] == 0.5325


def test_last_lines_of_a_run(pipeline: Path) -> None:
    stream = io.StringIO()
    report = print_final(pipeline / "rl", Console(file=stream, width=110))
    lines = stream.getvalue().splitlines()
    assert report == pipeline / "rl" / "report.html" and lines[-1] == str(report)
    assert "admitted 1212 = trained 960 + filtered 240 + failed 2 + stale 6 + in flight 4" in lines
    assert "120 steps, 8 min 00 s" in lines  # the run's own 480 s
    assert any("counting" in line and "+35.0" in line for line in lines)
    assert not (pipeline / "summary.json").exists()
