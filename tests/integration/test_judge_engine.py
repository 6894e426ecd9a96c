"""A real engine as judge: vLLM, held to the verdict's schema by structured outputs, behind HTTP.

The model is random, so its verdicts mean nothing; that they are verdicts is what is tested.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from concurrent.futures import Future
from typing import Any

from rewards import JudgeConfig, JudgePool, Request
from rl.rollout.vllm_engine import VllmEngine
from tests.integration.support import Paths
from tests.unit.rewards.judge_server import Call, Reply, serve

PROMPT_TOKENS = 256
"""The engine of these tests has room for 512; the end of the judge's prompt is enough for a random model."""


async def test_an_engines_verdicts_are_read(engine: VllmEngine, paths: Paths) -> None:
    from transformers import AutoTokenizer
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    tokenizer = AutoTokenizer.from_pretrained(paths.random)
    loop, numbers = asyncio.get_running_loop(), itertools.count()

    async def generate(body: dict[str, Any]) -> Any:
        text = "\n".join(message["content"] for message in body["messages"])
        ids = tokenizer.encode(text, add_special_tokens=False)[-PROMPT_TOKENS:]
        params = SamplingParams(
            temperature=body["temperature"],
            max_tokens=body["max_tokens"],
            seed=body["seed"],
            structured_outputs=StructuredOutputsParams(json=body["response_format"]["json_schema"]["schema"]),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await engine._submit(f"judge-{next(numbers)}", {"prompt_token_ids": ids}, params)
        return output.outputs[0]

    def relay(call: Call, number: int) -> Reply:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(generate(call.body), loop)
        output = future.result(60)
        return Reply(output.text, finish_reason=output.finish_reason)

    gold = json.dumps([{"question": "Which?", "answer": "red", "options": ["red", "blue"]}])
    with serve(relay) as server:
        config = JudgeConfig(
            url=server.url, model="random", votes=3, temperature=1.0, levels=4, vote="mean", max_tokens=200, retries=9
        )
        with JudgePool(config) as pool:
            requests = [
                Request(f"<answer>{text}</answer>", "4", "judge", prompt="2 + 2?") for text in ("4", "5", "six")
            ]
            requests.append(Request("<answer>A red square.</answer>", gold, "caption-qa"))
            results = await pool.ascore_many(requests)
    assert [result.status for result in results] == ["ok"] * 4, [result.detail for result in results]
    for result in results[:3]:
        assert result.components["votes"] == 3.0
        assert result.value in [total / 12 for total in range(13)]
    assert results[3].value in (0.0, 1.0)
    assert len(server.calls) >= 10  # a random model may fill its reply with white space, and is asked again
