"""A plug-in file through Ray: its actor grades with a copy, wherever it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from rl.cluster import RewardClient
from rl.config.rollout import RewardConfig
from rl.mail import Part
from rl.rollout.worker import ScoringTask

BACKWARDS = """
from rewards.base import graded
from rewards.extract import on_final_answer

def grade(prediction, answer, sample):
    return graded(float(prediction == answer[::-1]))

verify = on_final_answer(grade)
"""


async def test_a_plugin_file_grades_in_an_actor(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.py"
    path.write_text(BACKWARDS)
    monkeypatch.chdir(tmp_path)  # the actor has another working directory
    client = RewardClient(RewardConfig(plugins={"backwards": "mine.py"}, timeout_s=30), ["backwards", "number"])
    path.unlink()  # and need not see the driver's files
    try:
        await client.ready()
        texts = ("<answer>cba</answer>", "<answer>abc</answer>")
        task = ScoringTask(texts, ("abc",), "backwards", "normal", "Backwards?", None)
        grades = await client.score(Part(ray.put([task]), 0))
        assert (grades.rewards, grades.statuses) == ((1.0, 0.0), ("ok", "ok"))
    finally:
        await client.close()
