"""What SGLang's HTTP process has here besides: a route that answers once scheduler and detokenizers have.

What the scheduler samples reaches a client by way of the detokenizers alone, and no route of SGLang's own tells that
they hang: the scheduler answers the HTTP process directly, and /health_generate takes any message for a sign of life
while requests run, and hears of none while generation is paused.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

PATH = "/rl_ping"


def tokenizer_manager(server_args: Any, port_args: Any) -> Any:
    """SGLang's own, and the route: what `launch_server` takes as `init_tokenizer_manager_func`."""
    import zmq
    from sglang.srt.entrypoints.engine import init_tokenizer_manager
    from sglang.srt.entrypoints.http_server import app
    from sglang.srt.managers.io_struct import BatchEmbeddingOutput, sock_send
    from sglang.srt.managers.tokenizer_manager import TokenizerManager
    from sglang.srt.utils.network import get_zmq_socket

    class Manager(TokenizerManager):
        """Pings by sending detokenizers a batch of no requests, which each hands back as it came, behind what it has to
        do; and aborts can be told again.
        """

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._detokenizers = get_zmq_socket(zmq.Context(1), zmq.PUSH, port_args.detokenizer_ipc_name, False)
            self._numbers = itertools.count()
            self._echoes: dict[int, asyncio.Semaphore] = {}

        async def ping(self) -> None:
            await self.get_internal_state()
            number = next(self._numbers)
            echoes = self._echoes[number] = asyncio.Semaphore(0)
            try:
                sock_send(self._detokenizers, empty(number))
                for _ in range(server_args.detokenizer_worker_num):
                    await echoes.acquire()
            finally:
                del self._echoes[number]

        async def _handle_batch_output(self, output: Any) -> None:
            if not isinstance(output, BatchEmbeddingOutput) or output.rids:
                await super()._handle_batch_output(output)
            elif echoes := self._echoes.get(output.prompt_tokens[0]):
                echoes.release()

        def abort_request(self, rid: str = "", abort_all: bool = False) -> None:
            # The scheduler ignores an abort of what has not come to it yet, and this side sends each only once.
            if (state := self.rid_to_state.get(rid)) is not None:
                state.abort_sent = False
            super().abort_request(rid, abort_all)

    def empty(number: int) -> Any:
        return BatchEmbeddingOutput(
            rids=[],
            finished_reasons=[],
            embeddings=[],
            prompt_tokens=[number],
            cached_tokens=[],
            placeholder_tokens_idx=None,
            placeholder_tokens_val=None,
        )

    manager, templates = init_tokenizer_manager(server_args, port_args, Manager)
    app.add_api_route(PATH, manager.ping)
    return manager, templates
