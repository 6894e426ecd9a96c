"""`JudgePool`: grades requests through a judge, with the interface of `RewardPool`.

A judge waits for a network where a verifier burns a core, so it has no worker processes: one thread with an event loop
holds all its requests. See docs/decisions/0009-judges-have-their-own-lane.md.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rewards.base import RewardResult, UnknownVerifier, failed
from rewards.extract import is_well_formed, with_opened_reasoning
from rewards.judge.caption_qa import grade_caption
from rewards.judge.client import JudgeError
from rewards.judge.grade import grade_answer
from rewards.judge.panel import Panel
from rewards.judge.settings import JudgeConfig
from rewards.names import unknown_name
from rewards.request import Request
from rewards.settings import SettingsError, load_settings

T = TypeVar("T")
Grader = Callable[[Panel, JudgeConfig, Request, float], Awaitable[RewardResult]]

GRADERS: dict[str, Grader] = {"caption-qa": grade_caption, "judge": grade_answer}
JUDGED: frozenset[str] = frozenset(GRADERS)
"""Answer types that only a judge can grade."""

CONFIG_VARIABLE = "REWARDS_JUDGE"


class JudgePool:
    """One judge as a pool: requests of the answer types in `JUDGED` in, results in order out.

    Every request ends by `config.deadline_s` after its call. A judge that gave no verdict is `error`, or `timeout`
    where the time was up; it has no value, and never the value 0.

    Args:
        config: which endpoint and model, and within which limits.
        environ: where the API key is looked up; by default the environment of this process.

    Raises:
        SettingsError: the API key is missing, the cache can't be opened, httpx is not installed.
    """

    def __init__(self, config: JudgeConfig, environ: Mapping[str, str] | None = None) -> None:
        self.config = config
        self._environ = os.environ if environ is None else environ
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="judge")
        self._lock = threading.Lock()
        self._closed = False
        self._thread.start()
        try:
            self._panel = self._run(self._open()).result()
        except BaseException:
            self._stop()
            raise

    @classmethod
    def from_yaml(cls, path: str | Path) -> JudgePool:
        """A judge from a file of `JudgeConfig`; raises `SettingsError` for a file that can't be used."""
        return cls(load_settings(JudgeConfig, path))

    def score(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str = "judge",
        *,
        prompt: str | None = None,
        sample: Mapping[str, Any] | None = None,
    ) -> RewardResult:
        """Grade one completion; see `score_many`."""
        return self.score_many([Request(completion, answer, answer_type, prompt, sample)])[0]

    def score_many(self, requests: Iterable[Request]) -> list[RewardResult]:
        """Grade requests; the results are in their order. Blocks the thread: in an event loop use `ascore_many`.

        Raises:
            UnknownVerifier: an answer type that no judge grades; nothing has been asked then.
            RuntimeError: the judge is closed.
        """
        return self._submit(requests).result()

    async def ascore(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str = "judge",
        *,
        prompt: str | None = None,
        sample: Mapping[str, Any] | None = None,
    ) -> RewardResult:
        """`score` without blocking the event loop."""
        return (await self.ascore_many([Request(completion, answer, answer_type, prompt, sample)]))[0]

    async def ascore_many(self, requests: Iterable[Request]) -> list[RewardResult]:
        """`score_many` without blocking the event loop."""
        return await asyncio.wrap_future(self._submit(requests))

    def close(self) -> None:
        """End the requests in flight, whose callers get `CancelledError`, and the thread. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._stop()

    def __enter__(self) -> JudgePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, requests: Iterable[Request]) -> concurrent.futures.Future[list[RewardResult]]:
        batch = list(requests)
        for request in batch:
            if request.answer_type not in GRADERS:
                raise UnknownVerifier(unknown_name("judged answer type", request.answer_type, GRADERS))
        return self._run(self._grade_all(batch))

    async def _grade_all(self, batch: list[Request]) -> list[RewardResult]:
        deadline = self._loop.time() + self.config.deadline_s
        return list(await asyncio.gather(*(self._grade(request, deadline) for request in batch)))

    async def _grade(self, request: Request, deadline: float) -> RewardResult:
        request = replace(request, completion=with_opened_reasoning(request.completion, request.prompt))
        try:
            result = await GRADERS[request.answer_type](self._panel, self.config, request, deadline)
        except JudgeError as exc:
            return failed("timeout" if exc.status == "timeout" else "error", f"judge {self.config.model}: {exc}")
        except Exception as exc:  # the boundary to one request: its failure is data, and never a wrong answer
            return failed("error", f"judge {self.config.model}: {type(exc).__name__}: {exc!s:.300}")
        if result.value is None:
            return result
        thinks = (request.sample or {}).get("prompt_type") != "normal"
        form = float(is_well_formed(request.completion, thinks=thinks))
        return replace(result, components={"format": form, **result.components})

    def _run(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise RuntimeError("the judge is closed; make a new JudgePool")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> Panel:
        return Panel(self.config, self._environ)

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._panel.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@functools.cache
def default_judge() -> JudgePool:
    """The judge of this process, from the settings file that the environment variable REWARDS_JUDGE names.

    Raises:
        SettingsError: the variable is not set, or its file can't be used.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        raise SettingsError(
            f"no judge is configured: name a settings file (url, model, ...) in the environment variable "
            f"{CONFIG_VARIABLE}, pass requests to a rewards.JudgePool, or use a rewards.Mixture with `judges`"
        )
    return JudgePool.from_yaml(path)
