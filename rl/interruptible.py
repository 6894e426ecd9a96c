"""`asyncio.run` for work that owns actors: Ctrl-C ends it in good order, and what that leaves behind prints nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


def run_interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. Ctrl-C cancels it, and its `finally` closes what it owns; a second one ends the process.

    Raises:
        KeyboardInterrupt: Ctrl-C came; `work` is over by then.
    """
    interrupted = False

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            # Calls that are cut short fail when nobody waits for them any more, and asyncio would print each as an
            # exception that was never retrieved.
            loop.set_exception_handler(lambda _, context: logger.debug("after Ctrl-C: %s", context.get("message")))
            logger.warning("Ctrl-C: closing the actors; once more to end now")
            task.cancel()

        def on_sigint(number: int, frame: FrameType | None) -> None:
            nonlocal interrupted
            interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            loop.call_soon_threadsafe(interrupt)

        # Not `loop.add_signal_handler`: a part of the work that takes signals for itself can give this one back.
        before = signal.signal(signal.SIGINT, on_sigint)
        try:
            return await work
        finally:
            signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    try:
        return asyncio.run(supervised())
    except BaseException as exc:
        if interrupted and isinstance(exc, (asyncio.CancelledError, Exception)):
            raise KeyboardInterrupt from exc  # whatever failed on the way out, Ctrl-C was the cause
        raise
