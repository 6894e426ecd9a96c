"""The worker of the judges hangs with a question in hand: it is started anew, and the question gets its grade."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from rl.cluster import RewardClient
from rl.config.rollout import RewardConfig
from rl.rollout.worker import ScoringTask
from tests.integration.support import marked_processes
from tests.unit.rewards.judge_server import Call, Reply, score, serve

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

MIXTURE = "default: {{reward: {{name: accuracy, verifier: auto}}}}\njudges: {{default: {{url: '{url}', model: m}}}}\n"


async def test_a_hung_worker_of_the_judges_is_started_anew(cluster: None, tmp_path: Path) -> None:
    asked, release = threading.Event(), threading.Event()

    def reply(call: Call, number: int) -> Reply:
        asked.set()
        release.wait(60)
        return score(1)

    with serve(reply) as server:
        file = tmp_path / "mixture.yaml"
        file.write_text(MIXTURE.format(url=server.url))
        faults = {"ping_every_s": 0.5, "hang_s": 10}
        client = RewardClient(RewardConfig.model_validate({"mixture": str(file), "faults": faults}), ("judge",))
        try:
            await client.ready()
            (first,) = _judge_workers()
            question = ScoringTask(("<answer>5</answer>",), ("4",), "judge", "think", "2 + 2?", None)
            grades = asyncio.ensure_future(client.score(question))
            assert await asyncio.to_thread(asked.wait, 60)
            os.kill(first, signal.SIGSTOP)
            release.set()
            assert (await grades).statuses == ("ok",)
            (second,) = _judge_workers()
            assert second != first
        finally:
            release.set()
            await client.close()


def _judge_workers() -> list[int]:
    return [pid for pid, command in marked_processes().items() if "ray::JudgeWorker" in command]
