"""Questions with images to a model, wherever it runs: behind an endpoint, or in rollout workers of this cluster."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

from rl.config.endpoint import EndpointConfig
from rl.rollout.endpoint import Endpoint, Reply, user_parts
from rl.rollout.questions import CompletionTask, Question


class Chat(Protocol):
    """A model that answers questions."""

    async def ask(
        self,
        question: Question,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        schema: Mapping[str, Any] | None = None,
    ) -> Reply:
        """One reply, held to a JSON schema where one is given.

        Raises:
            EndpointUnavailable, EngineError, EngineDeadError: see `Endpoint.chat`.
            DataError: an image that can't be decoded.
        """
        ...

    async def close(self) -> None: ...


class EndpointChat:
    """Behind an OpenAI-compatible endpoint."""

    def __init__(self, config: EndpointConfig, max_pixels: int) -> None:
        self._endpoint, self._max_pixels = Endpoint(config), max_pixels

    async def ask(
        self,
        question: Question,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        schema: Mapping[str, Any] | None = None,
    ) -> Reply:
        """See `Chat`."""
        parts = await asyncio.to_thread(user_parts, question.text, question.images, self._max_pixels)
        system: list[dict[str, Any]] = [{"role": "system", "content": question.system}] if question.system else []
        messages = [*system, {"role": "user", "content": parts}]
        return await self._endpoint.chat(
            messages, temperature=temperature, max_tokens=max_tokens, seed=seed, schema=schema
        )

    async def close(self) -> None:
        await self._endpoint.close()


class WorkerChat:
    """In the rollout workers of a pool, which is closed with it."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._numbers = itertools.count()

    async def ask(
        self,
        question: Question,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        schema: Mapping[str, Any] | None = None,
    ) -> Reply:
        """See `Chat`."""
        task = CompletionTask(next(self._numbers), question, temperature, max_tokens, seed, schema)
        text, reason, tokens = await self._pool.complete(task)
        return Reply(text, reason, tokens)

    async def close(self) -> None:
        await self._pool.close()
