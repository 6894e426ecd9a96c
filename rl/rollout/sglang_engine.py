"""SGLang as an `Engine`: its HTTP server in a session of its own, started and ended by this object.

Completion `i` of a request is a request of its own to the server: with SGLang's `n` they would share an id and a seed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import json
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from rl.config.rollout import EngineConfig
from rl.errors import EngineDeadError, EngineError, FetchError, SyncError
from rl.records import Rollout, VersionSpan, WeightBundle
from rl.rollout.busy import BusyIntervals
from rl.rollout.engine import EngineLoad, Generated, GenerateRequest, PushTimes
from rl.rollout.inside_sglang.rl_ping import PATH as PING
from rl.rollout.limits import ModelLimits, is_greedy
from rl.rollout.sglang_client import Gone, Refused, SglangClient, is_ready
from rl.rollout.sglang_options import server_arguments, slots_of
from rl.rollout.sglang_push import WEIGHTS_FILE, StagedWeights, apply, go_on
from rl.rollout.sglang_server import SglangServer, find_python

T = TypeVar("T")

_BANNED = -1e9
"""Added to the logits of ids that must not be sampled: their probability is then exactly 0, at any temperature."""
_ABORT_AGAIN_S = 0.05
_AT_ONCE_S = 0.02
"""The HTTP process has no backlog when it answers within this; a busy one takes up to seconds."""
_CALM_S = 2.0
"""A swap waits no longer than this for that."""
_DEATH_S = 2.0
"""How long a broken connection waits to see the server end, whose log then says why."""


class SglangEngine:
    """See `rl.rollout.engine.Engine`. Blocks in the constructor until the server takes requests.

    What differs from vLLM: a seed decides the samples only under SGLang's deterministic inference, which is on with
    `deterministic`, and always on a CPU. A sequence that crosses a weight push is prefilled anew, so its samples after
    the push follow from the seed as well.
    """

    def __init__(self, model: str, config: EngineConfig, version: int = 0) -> None:
        python = find_python(config.sglang.python)
        self._limits = ModelLimits.of(model, config)
        self._ranks = config.tensor_parallel_size
        self._slots = slots_of(config)
        self._version = version
        self._failure: str | None = None
        self._closed = False
        self._serial = itertools.count()
        self._in_flight: dict[str, tuple[str, ...]] = {}
        self._queued, self._kv_use = 0, 0.0
        self._busy, self._busy_since = BusyIntervals(), 0.0
        self._weights = StagedWeights()
        environment = {WEIGHTS_FILE: self._weights.path}
        arguments = [*server_arguments(model, config, version), *config.sglang.arguments]
        try:
            self._server = SglangServer(python, arguments, environment, is_ready, config.sglang.start_s)
        except EngineError as exc:
            self._weights.close()
            raise EngineError(f"SGLang could not load {model}: {exc}") from exc
        self._client = SglangClient(self._server.url, self._server.key)
        self._open = asyncio.Event()
        self._open.set()
        self._pausing, self._paused = asyncio.Lock(), False

    @property
    def version(self) -> int:
        return self._version

    async def generate(self, request: GenerateRequest) -> Generated:
        self._limits.check(request)
        return await self._run(self._generate(request))

    async def score(
        self, prompt_ids: tuple[int, ...], images: tuple[np.ndarray, ...], response: np.ndarray
    ) -> np.ndarray:
        # Response ids are vouched for by whoever sampled them; a placeholder among them would hang the server.
        ids = (*prompt_ids, *response.tolist())
        self._limits.check_prompt(ids, images)
        body = self._body(ids, images) | {
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            # Counted in expanded ids, so from here on there is more than what is asked for.
            "logprob_start_len": len(prompt_ids) - 1,
        }
        reply = await self._run(self._client.post("/generate", body))
        entries = reply["meta_info"]["input_token_logprobs"][-len(response) :]
        scored = [entry[1] for entry in entries]
        # Its reply says 0 for ids that stand for pixels, and, one too early, for the last of the vocabulary.
        if scored != [token if token < self._limits.vocab_size - 1 else 0 for token in response.tolist()]:
            raise EngineError(
                f"SGLang scored {len(scored)} tokens that are not the {len(response)} it was given: their logprobs "
                "say nothing of these"
            )
        return np.asarray([entry[0] for entry in entries], np.float32)

    async def update_weights(self, bundle: WeightBundle) -> PushTimes:
        try:
            await asyncio.to_thread(self._weights.stage, bundle)
        except OSError as exc:
            raise FetchError(f"there is no memory to hand version {bundle.version} to SGLang: {exc}") from exc
        self._check_alive()
        try:
            times = await self._client.run(self._swap(bundle))
        except (Refused, Gone, SyncError) as exc:
            said = str(exc)
            if isinstance(exc, Gone):
                death = await self._gone(exc)
                if not self._weights.refused:
                    raise death from exc  # which says nothing of the weights: another server may load them
                said = self._server.last_words()
            self._fail(f"the push of version {bundle.version} failed")
            raise SyncError(
                f"the engine could not load version {bundle.version} and refuses further work: {said}"
            ) from exc
        self._weights.clear()
        return times

    async def abort(self, request_id: str) -> None:
        await self._run(self._abort(request_id))

    async def pause(self) -> None:
        await self._run(self._pause())

    async def resume(self) -> None:
        await self._run(self._resume())

    async def ping(self) -> None:
        # Answered by the scheduler, between two of its steps, and then by what takes its tokens to the HTTP process.
        await self._run(self._client.get(PING))
        await self._run(self._measure())

    def load(self) -> EngineLoad:
        """What the server has in hand now, and of that the queue and the cache that it reported at the last `ping`."""
        held = sum(len(ids) for ids in list(self._in_flight.values()))
        return load_of(held, self._slots, self._queued, self._kv_use)

    def drain_busy(self) -> list[tuple[float, float]]:
        """When requests were in flight: the server does not say when it computed."""
        if self._busy_since:
            self._note_busy()
            self._busy_since = time.time()
        return self._busy.drain()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._fail("the SGLang engine was closed")
        self._server.close()
        self._client.close()
        self._weights.close()

    # ---- on the client's loop -------------------------------------------------------------------------------------

    async def _swap(self, bundle: WeightBundle) -> PushTimes:
        # The server's HTTP process takes requests one after another, those with images for milliseconds each: behind a
        # hundred new ones the steps of a swap would wait, and all that runs with them.
        async with self._pausing:
            self._open.clear()
            try:
                await self._calm()
                times = await apply(bundle, self._weights, self._ranks, self._client.post, resume=not self._paused)
                self._version = bundle.version  # before those that were kept back name it
                return times
            finally:
                if not self._paused:
                    self._open.set()

    async def _pause(self) -> None:
        async with self._pausing:
            if self._paused:
                return
            self._open.clear()
            try:
                await self._calm()
                await self._client.post("/pause_generation", {"mode": "in_place"})
                # Answered before the scheduler has heard of it, which takes messages in their order.
                await self._client.get(PING)
                self._paused = True
                self._note_busy()
            finally:
                if not self._paused:
                    self._open.set()

    async def _resume(self) -> None:
        async with self._pausing:
            if self._paused:
                await go_on(self._client.post)
                self._paused = False
                self._busy_since = time.time() if self._in_flight else 0.0
                self._open.set()

    async def _calm(self) -> None:
        """Wait until the HTTP process answers at once, while what runs goes on; not for long."""
        asked, latest = time.monotonic(), time.monotonic() + _CALM_S
        while asked < latest:
            await self._client.get("/model_info")
            answered = time.monotonic()
            if answered - asked < _AT_ONCE_S:
                return
            asked = answered

    async def _generate(self, request: GenerateRequest) -> Generated:
        if request.request_id in self._in_flight:
            raise EngineError(f"request {request.request_id} is in flight already; every request needs its own id")
        # An abort reaches every request whose id begins with the one given: the first's id begins the others', and
        # none of another request's.
        first = f"{next(self._serial):x}."
        ids = (first, *(f"{first}{i:x}." for i in range(1, request.n)))
        self._in_flight[request.request_id] = ids
        if not self._paused:
            self._busy_since = self._busy_since or time.time()
        try:
            await self._open.wait()
            body = self._body(request.prompt_ids, request.images) | {"return_prompt_token_ids": True}
            calls = (self._complete(body, request, rid, i) for i, rid in enumerate(ids))
            replies = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            del self._in_flight[request.request_id]
            if not self._in_flight:
                self._note_busy()
                self._queued, self._kv_use = 0, 0.0  # of sequences that have ended
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        answers: list[Any] = list(replies)
        return Generated(self._prompt_seen(request, answers), tuple(map(_rollout, answers)))

    async def _complete(self, body: Mapping[str, Any], request: GenerateRequest, rid: str, i: int) -> Any:
        reply = await self._client.post("/generate", {**body, "rid": rid, "sampling_params": self._params(request, i)})
        reason = reply["meta_info"]["finish_reason"]
        if reason["type"] == "abort" and reason.get("status_code"):
            # The server gave up by itself; an abort that was asked for has no status.
            raise EngineError(f"SGLang refused request {request.request_id}: {reason.get('message')}")
        return reply

    def _note_busy(self) -> None:
        if self._busy_since:
            self._busy.note(self._busy_since, time.time())
            self._busy_since = 0.0

    async def _measure(self) -> None:
        """Take over what the scheduler last wrote of its load: at every prefill, and every few steps of decoding."""
        with contextlib.suppress(Refused):  # an older server does not tell; what this side knows has to do
            ranks = (await self._client.get("/v1/loads?include=core"))["loads"]
            self._queued = sum(rank["num_waiting_reqs"] for rank in ranks)
            self._kv_use = max((rank["token_usage"] for rank in ranks), default=0.0)

    async def _abort(self, request_id: str) -> None:
        ids = self._in_flight.get(request_id, ())
        while ids and self._in_flight.get(request_id) is ids:
            # The first's id ends them all at once; where it has ended by itself, the server ignores it, and those that
            # wait go first, lest each takes the place of one that is aborted before it. The server knows nothing yet
            # of requests that are still on their way to it, so it is told again until they have ended.
            await self._client.post("/abort_request", {"rid": ids[0]})
            await asyncio.gather(*(self._client.post("/abort_request", {"rid": rid}) for rid in reversed(ids[1:])))
            await asyncio.sleep(_ABORT_AGAIN_S)

    def _body(self, prompt_ids: Sequence[int], images: Sequence[np.ndarray]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "input_ids": list(prompt_ids),
            "return_logprob": True,
            # Prefixes are shared within a version: a push that keeps keys leaves some of the old weights there.
            "extra_key": str(self._version),
        }
        return body | {"image_data": [_png(image) for image in images]} if images else body

    def _params(self, request: GenerateRequest, i: int) -> dict[str, Any]:
        greedy = is_greedy(request.temperature)
        length = self._limits.length(request.prompt_ids, request.images)
        params: dict[str, Any] = {
            # The server refuses what could exceed the context.
            "max_new_tokens": min(request.max_tokens, self._limits.max_len - length),
            "temperature": 0.0 if greedy else request.temperature,
            "sampling_seed": (request.seed + i) % (1 << 63),
        }
        if self._limits.unsampled:
            params["logit_bias"] = {str(token): _BANNED for token in self._limits.unsampled}
        if request.schema is not None:
            params["json_schema"] = json.dumps(request.schema)
        return params

    def _prompt_seen(self, request: GenerateRequest, replies: Sequence[Any]) -> np.ndarray:
        return np.asarray(replies[0].get("prompt_token_ids", request.prompt_ids), np.int32)

    # ---- life and death -------------------------------------------------------------------------------------------

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_alive()
        except EngineDeadError:
            work.close()
            raise
        try:
            return await self._client.run(work)
        except Refused as exc:
            raise EngineError(f"SGLang refused a request: {exc}") from exc
        except Gone as exc:
            raise await self._gone(exc) from exc

    def _check_alive(self) -> None:
        if self._failure is None and not self._server.alive:
            self._fail(self._server.last_words())
        if self._failure is not None:
            raise EngineDeadError(f"the SGLang engine is not running: {self._failure}")

    async def _gone(self, exc: Gone) -> EngineDeadError:
        """What to raise when the server did not answer. It is ended."""
        await self._see_the_end()
        said = self._failure or f"{exc}. The end of its log:\n{self._server.last_words()}"
        self._fail(said)
        return EngineDeadError(f"the SGLang engine died: {said}")

    async def _see_the_end(self) -> None:
        deadline = time.monotonic() + _DEATH_S
        while self._server.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    def _fail(self, reason: str) -> None:
        """No more work: half-written weights must never sample, and half a server would hang its callers."""
        if self._failure is None:
            self._failure = reason
        # Whoever notices kills this process, and a server that is dead can't clean up after itself.
        self._server.close()
        self._client.soon(self._open.set)  # what is kept back fails as the rest does


def load_of(held: int, slots: int, queued: int, kv_use: float) -> EngineLoad:
    """The load of a server that has `held` sequences in hand and said a little while ago that `queued` waited.

    More wait than there are above its slots where its cache is full.
    """
    waiting = max(min(queued, held), held - slots)
    return EngineLoad(held - waiting, waiting, kv_use if held else 0.0, slots)


def _png(image: np.ndarray) -> str:
    """A lossless file, as base64: the server decodes the very pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _rollout(reply: Mapping[str, Any]) -> Rollout:
    meta = reply["meta_info"]
    pairs = meta.get("output_token_logprobs") or []
    ids = np.asarray([pair[1] for pair in pairs], np.int32)
    logprobs = np.asarray([pair[0] for pair in pairs], np.float32)
    given = meta.get("weight_versions") or []
    spans = [VersionSpan(int(span["version"]), span["start"], min(span["end"], len(ids))) for span in given]
    kept = tuple(span for span in spans if span.start < span.end)
    if ids.tolist() != list(reply["output_ids"]) or (len(ids) and kept[-1].end != len(ids)):
        raise EngineError(f"SGLang's answer does not fit together: {len(ids)} logprobs, {len(reply['output_ids'])} ids")
    return Rollout(ids, logprobs, kept, meta["finish_reason"]["type"], text="")
