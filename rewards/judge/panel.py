"""Votes on one question: cached, shared by equal questions in flight, retried, and counted."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence

from rewards.judge.cache import VerdictCache, digest_of
from rewards.judge.client import ChatClient, JudgeError
from rewards.judge.limits import Gate, backoff
from rewards.judge.prompts import Ask
from rewards.judge.settings import JudgeConfig
from rewards.judge.verdict import BadVerdict

FORMAT_VERSION = 1
"""Part of every cache key; goes up when equal prompts may mean something else."""


class Panel:
    """Puts questions to one judge. Lives in one event loop; deadlines are its loop's times."""

    def __init__(self, config: JudgeConfig, environ: Mapping[str, str]) -> None:
        self._config = config
        self._client = ChatClient(config, environ)
        self._cache = VerdictCache(config.cache)
        self._gate = Gate(config.concurrency, config.requests_per_minute)
        self._running: dict[bytes, asyncio.Task[int | str]] = {}
        self._jitter = random.Random(secrets.randbits(64))

    async def scores(self, ask: Ask, deadline: float) -> list[int]:
        """The scores of all votes that came in, more than half of `votes`.

        Raises:
            JudgeError: too few verdicts; carries the first failure.
        """
        votes = self._config.votes
        tasks = [self.verdict(ask, number, deadline) for number in range(votes)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if not isinstance(failure, JudgeError):
                raise failure
        scores = [outcome for outcome in outcomes if isinstance(outcome, int)]
        if 2 * len(scores) > votes:
            return scores
        first = failures[0]
        assert isinstance(first, JudgeError)
        share = f"{len(scores)} of {votes} votes: " if votes > 1 else ""
        raise JudgeError(f"{share}{first}", status=first.status)

    async def verdict(self, ask: Ask, number: int, deadline: float) -> int | str:
        """Vote `number` on a question; equal questions in flight share one request.

        Raises:
            JudgeError: no verdict, with the reason of the last try.
        """
        key = self._key(ask, number)
        loop = asyncio.get_running_loop()
        while True:
            known = self._cache.get(key)
            if known is not None:
                return known
            task = self._running.get(key)
            mine = task is None
            if task is None:
                task = loop.create_task(self._asked(ask, number, deadline, key))
                self._running[key] = task
                task.add_done_callback(lambda done: self._forget(key, done))
            try:
                async with asyncio.timeout_at(deadline):
                    return await asyncio.shield(task)  # others may wait for it, so our cancellation must not end it
            except TimeoutError as exc:
                raise self._late() from exc
            except JudgeError as error:
                if mine or error.status != "timeout" or loop.time() >= deadline:
                    raise
                # It was begun for a caller with less time than we have: ask again.

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()
        self._cache.close()

    async def _asked(self, ask: Ask, number: int, deadline: float, key: bytes) -> int | str:
        try:
            async with asyncio.timeout_at(deadline):
                verdict = await self._with_retries(ask, number, deadline)
        except TimeoutError as exc:
            raise self._late() from exc
        self._cache.put(key, verdict)
        return verdict

    async def _with_retries(self, ask: Ask, number: int, deadline: float) -> int | str:
        config = self._config
        for attempt in range(config.retries + 1):
            try:
                async with self._gate.admit():
                    # Another seed for each vote and each try: the same bad reply would come again.
                    seed = number + config.votes * attempt
                    messages = ask.messages(secrets.token_hex(16))
                    return ask.read(await self._client.complete(messages, ask.schema, seed))
            except BadVerdict as exc:
                error = JudgeError(str(exc), retry=True)
            except JudgeError as exc:
                error = exc
            if not error.retry or attempt == config.retries:
                raise error
            if error.after_s > 0:
                if asyncio.get_running_loop().time() + error.after_s > deadline:
                    raise JudgeError(f"{error}; it asks to wait {error.after_s:.0f} s, which is past the deadline")
                self._gate.pause(error.after_s)
            await asyncio.sleep(backoff(config.backoff_s, attempt, self._jitter.random()))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _key(self, ask: Ask, number: int) -> bytes:
        config = self._config
        settings = [config.url, config.model, config.temperature, config.max_tokens, config.structured, config.extra]
        return digest_of(FORMAT_VERSION, settings, ask.fingerprint(), number)

    def _forget(self, key: bytes, task: asyncio.Task[int | str]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody's failure is not reported as forgotten

    def _late(self) -> JudgeError:
        return JudgeError(f"no verdict within {self._config.deadline_s:g} s", status="timeout")


def decide(scores: Sequence[int], levels: int, vote: str) -> float:
    """Votes in 0..levels as one value in [0, 1].

    `majority`: the most frequent score, the lowest of equally frequent ones. `mean`: the average.
    """
    if vote == "mean":
        return sum(scores) / (len(scores) * levels)
    counts = Counter(scores)
    most = max(counts.values())
    return min(score for score, count in counts.items() if count == most) / levels
