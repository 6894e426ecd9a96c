"""vLLM as an `Engine`: `LLMEngine` stepped by one thread of this process.

One process per engine starts faster than vLLM's server processes and lets a weight update happen between two steps, on
the thread that steps, with no messages in between. Everything that touches the engine runs on that thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from rl.config.rollout import EngineConfig
from rl.errors import EngineError, first_lines
from rl.records import Rollout, VersionSpan, WeightBundle
from rl.rollout.complete import check_complete, complete_sets
from rl.rollout.engine import EngineLoad, Generated, GenerateRequest, PushTimes
from rl.rollout.engine_thread import EngineThread
from rl.rollout.limits import ModelLimits

_CPU_BATCHED_TOKENS = 8192


def vllm_environment(threads: int, gpus: float) -> dict[str, str]:
    """Environment that must stand before vLLM is imported, for the Ray runtime env of a worker."""
    env = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "OMP_NUM_THREADS": str(threads),
    }
    if gpus == 0:
        env |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return env


class VllmEngine:
    """See `rl.rollout.engine.Engine`. Blocks in the constructor until the model is loaded."""

    def __init__(self, model: str, config: EngineConfig, version: int = 0) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
            raise EngineError(
                "set VLLM_ENABLE_V1_MULTIPROCESSING=0 before vLLM is imported: the engine steps in-process"
            )
        kwargs: dict[str, Any] = dict(
            model=model,
            dtype=config.dtype,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            enforce_eager=config.enforce_eager,
            tensor_parallel_size=config.tensor_parallel_size,
            # Raw logprobs ignore the temperature; training needs those of the distribution that was sampled.
            logprobs_mode="processed_logprobs",
            limit_mm_per_prompt={"image": config.images_per_prompt, "video": 0},
            worker_extension_cls="rl.rollout.vllm_extension.WeightsExtension",
            disable_log_stats=True,
            seed=0,
        )
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            # A seeded request whose prefill is cut in two rewinds its generator, which CPU generators can't do.
            kwargs |= {
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, config.max_model_len),
            }
        if config.deterministic:
            kwargs |= {"max_num_seqs": 1, "enable_prefix_caching": False}
        if config.kv_cache_mb is not None:
            kwargs["kv_cache_memory_bytes"] = config.kv_cache_mb << 20
        else:
            kwargs["gpu_memory_utilization"] = config.gpu_memory_utilization
        try:
            self._engine: Any = LLMEngine.from_engine_args(EngineArgs(**kwargs))
        except Exception as exc:
            raise EngineError(f"vLLM could not load {model}: {first_lines(exc)}") from exc
        self._model, self._complete = model, tuple[frozenset[str], ...]()
        self._limits = ModelLimits.of(model, config)
        # The bias is bounded by -100, which leaves e^-100 of the mass: nothing at any precision used here.
        self._bias = dict.fromkeys(self._limits.unsampled, -100.0) or None
        self._core: Any = self._engine.engine_core.engine_core
        self._slots: int = kwargs["max_num_seqs"]
        self._engine.set_weight_version(str(version))
        self._version = version
        self._internal_ids: dict[str, str] = {}
        self._thread = EngineThread("vLLM", self._engine.has_unfinished_requests, self._step)

    @property
    def version(self) -> int:
        return self._version

    async def generate(self, request: GenerateRequest) -> Generated:
        self._limits.check(request)
        params = _sampling_params(
            n=request.n,
            seed=request.seed,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            logprobs=0,
            logit_bias=self._bias,
            structured_outputs=_structure(request.schema),
        )
        output = await self._submit(request.request_id, _prompt(request.prompt_ids, request.images), params)
        rollouts = tuple(_rollout(completion) for completion in sorted(output.outputs, key=lambda c: c.index))
        return Generated(np.asarray(output.prompt_token_ids, dtype=np.int32), rollouts)

    async def score(
        self, prompt_ids: tuple[int, ...], images: tuple[np.ndarray, ...], response: np.ndarray
    ) -> np.ndarray:
        ids = (*prompt_ids, *response.tolist())
        self._limits.check_prompt(ids, images)
        params = _sampling_params(max_tokens=1, prompt_logprobs=0)
        output = await self._submit(f"score-{time.monotonic_ns()}", _prompt(ids, images), params)
        tail = output.prompt_logprobs[-len(response) :]
        return np.asarray([entry[int(token)].logprob for entry, token in zip(tail, response, strict=True)], np.float32)

    async def update_weights(self, bundle: WeightBundle) -> PushTimes:
        if not self._complete:  # at the first push, while requests run: an engine that gets none does without
            self._complete = await asyncio.to_thread(complete_sets, self._model)
        return await self._thread.swap(bundle.version, lambda: self._swap(bundle))

    async def abort(self, request_id: str) -> None:
        await self._thread.call(lambda: self._abort(request_id))

    async def pause(self) -> None:
        await self._thread.pause(True)

    async def resume(self) -> None:
        await self._thread.pause(False)

    async def ping(self) -> None:
        await self._thread.call(lambda: None)

    def load(self) -> EngineLoad:
        running, waiting = self._core.scheduler.get_request_counts()
        return EngineLoad(running, waiting, self._core.scheduler.get_kv_cache_usage(), self._slots)

    def drain_busy(self) -> list[tuple[float, float]]:
        return self._thread.busy.drain()

    def close(self) -> None:
        self._thread.close()

    async def _submit(self, request_id: str, prompt: dict[str, Any], params: Any) -> Any:
        def add() -> None:
            self._internal_ids[request_id] = self._engine.add_request(request_id, prompt, params)

        return await self._thread.request(request_id, add)

    # ---- on the engine thread -------------------------------------------------------------------------------------

    def _step(self) -> None:
        for output in self._engine.step():
            if output.finished:
                self._internal_ids.pop(output.request_id, None)
                self._thread.finish(output.request_id, output)

    def _swap(self, bundle: WeightBundle) -> PushTimes:
        begin = time.monotonic()
        try:
            check_complete(bundle.names, self._complete)
            self._core.pause_scheduler(mode="keep", clear_cache=False)
            # Keys, values and image features came from the old weights; running requests are prefilled again. Processed
            # pixels did not, so their cache stays.
            if bundle.keep_cache:
                # Only those that run now go on with theirs: no request finds them as a prefix of its own.
                blocks = self._core.scheduler.kv_cache_manager
                blocks.evict_blocks(set(range(blocks.block_pool.num_gpu_blocks)))
            else:
                self._core.reset_prefix_cache(reset_running_requests=True)
            self._core.reset_encoder_cache()
            loading = time.monotonic()
            self._engine.collective_rpc("load_bundle", args=(bundle,))
        except BaseException as exc:
            self._thread.fail(exc)  # half-written weights: never sample from them
            raise
        applied = time.monotonic() - loading
        self._engine.set_weight_version(str(bundle.version))
        self._version = bundle.version
        self._core.resume_scheduler()
        return PushTimes(pause_s=time.monotonic() - begin, apply_s=applied)

    def _abort(self, request_id: str) -> None:
        """End a request with what it has. vLLM gives that only to requests with a queue, so each part gets one here."""
        internal = self._internal_ids.pop(request_id, None)
        if internal is None:
            return
        processor, ended = self._engine.output_processor, _Outputs()
        parent = processor.parent_requests.get(internal)
        for part in [internal] if parent is None else list(parent.child_requests):
            if part in processor.request_states:
                processor.request_states[part].queue = ended
        self._engine.abort_request([internal], internal=True)
        # Of several completions only the last to end carries them all.
        missing = EngineError(f"request {request_id} was aborted, and vLLM gave no output for it")
        self._thread.finish(request_id, ended[-1] if ended else missing)


class _Outputs(list[Any]):
    """What vLLM hands outputs to."""

    put = list.append


def _sampling_params(**settings: Any) -> Any:
    """Raises EngineError for values that vLLM does not take, such as a temperature above 2."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    try:
        return SamplingParams(detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **settings)
    except Exception as exc:
        raise EngineError(f"vLLM refused the sampling settings: {exc}") from exc


def _structure(schema: Mapping[str, Any] | None) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    return None if schema is None else StructuredOutputsParams(json=dict(schema))


def _prompt(prompt_ids: tuple[int, ...], images: tuple[np.ndarray, ...]) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt_token_ids": list(prompt_ids)}
    if images:
        from PIL import Image

        prompt["multi_modal_data"] = {"image": [Image.fromarray(image) for image in images]}
    return prompt


def _rollout(completion: Any) -> Rollout:
    ids = np.asarray(completion.token_ids, dtype=np.int32)
    pairs = zip(completion.logprobs or [], ids, strict=True)
    logprobs = np.asarray([entry[int(token)].logprob for entry, token in pairs], dtype=np.float32)
    spans = tuple(VersionSpan(int(span.version), span.start, span.end) for span in completion.weight_versions or [])
    return Rollout(ids, logprobs, spans, completion.finish_reason or "abort", text="")
