"""A model behind an endpoint: what it is sent, what its replies mean, and what its failures cost. Over real HTTP."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rl.config.base import parse_config
from rl.config.curate import ProfileConfig
from rl.config.data import PromptConfig
from rl.config.endpoint import EndpointConfig
from rl.config.rollout import SamplingConfig
from rl.curate.attempts import AttemptWriter, Made, made_so_far, read_attempts
from rl.curate.profile import _Maker, _rounds, _Work
from rl.curate.profile import check as check_profile
from rl.data.formats import write_samples
from rl.errors import ConfigError, DataError, EndpointUnavailable, EngineDeadError, EngineError
from rl.eval.runner import attempt_seed
from rl.records import Grades
from rl.rollout.endpoint import Endpoint, EndpointPool, chat_messages
from rl.rollout.worker import PromptTask
from tests.unit.groups import plain_grades
from tests.unit.rewards.judge_server import Call, JudgeServer, Reply, serve

from .conftest import sample
from .test_clean import png
from .test_profile import Silent

BUSY = Reply(status=503, raw=b"the model is loading")


def config(server: JudgeServer, **changes: Any) -> EndpointConfig:
    return parse_config(EndpointConfig, {"url": server.url, "model": "m", "retries": 2, "backoff_s": 0, **changes})


def message(content: str | None, finish: str = "stop", tokens: int | None = 5, **more: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return Reply(raw=json.dumps({"choices": [choice], **usage}).encode())


async def ask(script: Callable[[Call, int], Reply], **changes: Any) -> Any:
    with serve(script) as server:
        endpoint = Endpoint(config(server, **changes))
        try:
            return await endpoint.chat([{"role": "user", "content": "?"}], temperature=0.5, max_tokens=9, seed=7)
        finally:
            await endpoint.close()


async def test_a_request_says_what_the_attempt_is() -> None:
    calls: list[Call] = []

    def script(call: Call, number: int) -> Reply:
        calls.append(call)
        return message("<answer>4</answer>")

    reply = await ask(script, extra={"top_k": 3})
    assert (reply.text, reply.finish_reason, reply.tokens) == ("<answer>4</answer>", "stop", 5)
    body = calls[0].body
    assert {name: body[name] for name in ("model", "temperature", "max_tokens", "seed", "top_k")} == {
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 7,
        "top_k": 3,
    }
    await ask(script, send_seed=False)
    assert "seed" not in calls[1].body


@pytest.mark.parametrize(
    ("reply", "changes", "text", "reason", "tokens"),
    [
        (message("4", reasoning_content="2 + 2"), {}, "<think>2 + 2</think>4", "stop", 5),
        (message(None, "length", reasoning="2 +"), {}, "<think>2 +", "length", 5),
        (message("so 4</think>4"), {"opens_reasoning": True}, "<think>so 4</think>4", "stop", 5),
        (message("4", "length", tokens=None), {}, "4", "length", 0),
        (message("4", "tool_calls"), {}, "4", "stop", 5),
        (message("", tokens=1), {}, "", "stop", 1),  # a model may end at once; that is an attempt like any other
        (message(None), {}, "", "stop", 5),
    ],
)
async def test_replies(reply: Reply, changes: dict[str, Any], text: str, reason: str, tokens: int) -> None:
    got = await ask(lambda call, number: reply, **changes)
    assert (got.text, got.finish_reason, got.tokens) == (text, reason, tokens)


@pytest.mark.parametrize(
    "bad",
    [
        BUSY,
        Reply(status=429, headers={"Retry-After": "0"}),
        Reply(raw=b"<html>"),
        Reply(raw=b"[]"),
        Reply(raw=b'{"choices": []}'),
        Reply(raw=b'{"choices": [{"message": "x"}]}'),
        Reply(raw=b'{"choices": [{"message": {"content": "4"}}]}'),
        message(["4"]),  # type: ignore[arg-type]
    ],
)
async def test_what_a_retry_may_mend_is_tried_again(bad: Reply) -> None:
    reply = await ask(lambda call, number: bad if number < 2 else message("4"))
    assert reply.text == "4"
    with pytest.raises(EndpointUnavailable, match="m at http://127"):
        await ask(lambda call, number: bad)


async def test_refusals_are_told_apart() -> None:
    with pytest.raises(EngineError, match="HTTP 400: too long") as caught:
        await ask(lambda call, number: Reply(status=400, raw=b"too long"))
    assert not isinstance(caught.value, EndpointUnavailable | EngineDeadError), "a fact about this prompt"
    with pytest.raises(EngineDeadError, match=r"HTTP 404: .*check url and model"):
        await ask(lambda call, number: Reply(status=404, raw=b"no such model"))


async def test_an_endpoint_that_is_down_ends_the_run() -> None:
    with serve(lambda call, number: BUSY) as server:
        endpoint = Endpoint(config(server, retries=0, give_up_after=3))
        ask = {"messages": [{"role": "user", "content": "?"}], "temperature": 1.0, "max_tokens": 9, "seed": 0}
        for _ in range(2):
            with pytest.raises(EndpointUnavailable):
                await endpoint.chat(**ask)
        with pytest.raises(EngineDeadError, match=r"3 requests in a row got no reply; the last: m at .*503"):
            await endpoint.chat(**ask)
        await endpoint.close()
    refused = Endpoint(config(server, retries=1))
    with pytest.raises(EndpointUnavailable, match="ConnectError"):
        await refused.chat(**ask)
    await refused.close()


def test_a_sample_as_messages() -> None:
    image = png((5, 5, 30, 30), size=100)
    prompts = PromptConfig(think="Think.", system="Be brief.", max_pixels=50 * 50)
    made = chat_messages(sample("a", problem="<image>Left or <image>right?", images=(image, image)), prompts)
    assert made[0] == {"role": "system", "content": "Be brief."}
    parts = made[1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text", "image_url", "text"]
    assert (parts[1]["text"], parts[3]["text"]) == ("Left or ", "right?\nThink.")
    sent = base64.b64decode(parts[0]["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(sent)).size == (50, 50)
    with pytest.raises(DataError, match="control text"):
        chat_messages(sample("a", problem="<|im_end|>?"), prompts)


SETTINGS = {"candidates": "c.parquet", "out": "o", "attempts": 6, "seed": 5}


def profile(server: JudgeServer | None = None, **changes: Any) -> ProfileConfig:
    endpoint = {"url": server.url if server else "http://x/v1", "model": "m", "backoff_s": 0, **changes}
    return parse_config(ProfileConfig, {"policies": {"p": {"endpoint": endpoint}}, **SETTINGS})


class Graders:
    """Right is what says 4."""

    async def score(self, task: Any, evaluation: bool) -> Grades:
        return plain_grades(tuple(float("4" in text) for text in task.texts))

    async def answers(self, task: Any, limit: int) -> tuple[str, ...]:
        return task.texts


async def make(folder: Path, settings: ProfileConfig) -> tuple[int, _Maker]:
    """One run over three candidates, as `rl curate profile` makes it."""
    write_samples([sample(name) for name in "abc"], folder / "c.parquet")
    endpoint = settings.policies["p"].endpoint
    assert endpoint is not None
    with AttemptWriter(folder / "attempts") as writer:
        done = {name: made for (_, name), made in made_so_far(folder / "attempts").items()}
        work = [_Work(i, name, done.get(name, Made())) for i, name in enumerate("abc")]
        pending = iter([item for item in work if _rounds(settings, item.made)])
        pool, graders = EndpointPool(endpoint, PromptConfig(), str(folder / "c.parquet"), "raise"), Graders()
        sources = dict.fromkeys("abc", "chart")
        sampling = SamplingConfig(max_tokens=4)
        maker = _Maker(settings, "p", "c", pool, graders, sources, writer, Silent(), sampling, singly=True)  # type: ignore[arg-type]
        try:
            return await maker.drain(pending), maker
        finally:
            await pool.close()


async def test_an_endpoint_that_fails_half_the_time_loses_no_attempt(tmp_path: Path) -> None:
    def script(call: Call, number: int) -> Reply:
        return BUSY if number % 2 else message(f"<answer>{call.body['seed'] % 7}</answer>")

    with serve(script) as server:
        made, runs = 0, 0
        while made < 18 and runs < 9:
            runs += 1
            fresh, maker = await make(tmp_path, profile(server, retries=0))
            made += fresh
            assert fresh + maker.missed.total() == 18 - (made - fresh)
            assert all("m at http://127" in reason and "HTTP 503" in reason for reason in maker.missed)
    assert runs > 1 and made == 18
    rows = [row for batch in read_attempts([tmp_path], tuple(COLUMNS)) for row in batch.to_pylist()]
    assert sorted((row["id"], row["attempt"]) for row in rows) == [(name, i) for name in "abc" for i in range(6)]
    for row in rows:
        seed = attempt_seed(5, row["id"]) + row["attempt"]
        assert (row["seed"], row["answer"], row["length"]) == (seed, f"<answer>{seed % 7}</answer>", 5)
        assert row["reward"] == float(seed % 7 == 4)


COLUMNS = ("id", "attempt", "seed", "reward", "status", "answer", "length")


async def test_with_retries_half_of_the_failures_cost_nothing(tmp_path: Path) -> None:
    with serve(lambda call, number: BUSY if number % 2 == 0 else message("4")) as server:
        fresh, maker = await make(tmp_path, profile(server, retries=1))
    assert (fresh, maker.missed.total(), len(server.calls)) == (18, 0, 36)


async def test_a_refused_prompt_is_stored_as_such(tmp_path: Path) -> None:
    def script(call: Call, number: int) -> Reply:
        question = json.dumps(call.body["messages"])
        return Reply(status=400, raw=b"content policy") if "What is b?" in question else message("4", tokens=None)

    with serve(script) as server:
        fresh, maker = await make(tmp_path, profile(server))
    assert (fresh, maker.missed.total()) == (18, 0)
    rows = [row for batch in read_attempts([tmp_path], tuple(COLUMNS)) for row in batch.to_pylist()]
    refused = [row for row in rows if row["id"] == "b"]
    assert len(refused) == 6 and all(row["reward"] is None and "content policy" in row["status"] for row in refused)
    assert all(row["length"] is None for row in rows), "the server does not say"


async def test_the_pool_looks_like_the_other_one(tmp_path: Path) -> None:
    write_samples([sample("a"), sample("b", source="web", answer_type="string")], tmp_path / "c.parquet")
    with serve(lambda call, number: message(str(call.body["seed"]), tokens=number + 1)) as server:
        pool = EndpointPool(config(server), PromptConfig(), str(tmp_path / "c.parquet"), "raise")
        assert await pool.catalogue("c") == (("a", "b"), {"a": "chart", "b": "web"}, ("number", "string"))
        meta, scoring, _ = await pool.generate(PromptTask(3, "c", "b", 2, 40, SamplingConfig(max_tokens=4)))
        await pool.close()
    assert (meta.uid, meta.sample_id, meta.source, sorted(meta.lengths)) == (3, "b", "web", [1, 2])
    assert (scoring.texts, scoring.answer_type, scoring.problem) == (("40", "41"), "string", "What is b?")


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for changes, words in (
        ({"url": "ftp://x"}, "of the form http"),
        ({"url": "http://me:secret@x/v1"}, "set api_key_env"),
        ({"api_key_env": "sk-1-2"}, "it is not the key"),
        ({"extra": {"seed": 1}}, "may not set seed"),
    ):
        with pytest.raises(ConfigError, match=words):
            profile(**changes)
    with pytest.raises(ConfigError, match="a model or an endpoint"):
        parse_config(ProfileConfig, {"policies": {"p": {}}, **SETTINGS})
    monkeypatch.delenv("SOME_KEY", raising=False)
    write_samples([sample("a")], tmp_path / "c.parquet")
    settings = profile(api_key_env="SOME_KEY").model_copy(update={"candidates": str(tmp_path / "c.parquet")})
    assert ["SOME_KEY, which is not set" in problem for problem in check_profile(settings)] == [True]
    endpoint = settings.policies["p"].endpoint
    assert endpoint is not None
    with pytest.raises(ConfigError, match="SOME_KEY, which is not set"):
        Endpoint(endpoint)
