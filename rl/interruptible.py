"""`asyncio.run` for work that owns actors: Ctrl-C and SIGTERM end it in good order, and what that leaves behind prints
nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from rl.errors import StoppedError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_STOPPED = (
    "SIGTERM: stopped and closed before the work was done; start it again to go on, a training run with --auto-resume"
)


def run_interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. Ctrl-C or SIGTERM cancels it, and its `finally` closes what it owns; a second one ends the
    process.

    Raises:
        KeyboardInterrupt: Ctrl-C came; `work` is over by then.
        StoppedError: SIGTERM came, as preemption sends it; likewise.
    """
    came: list[int] = []

    async def supervised() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            # Calls that are cut short fail when nobody waits for them any more, and asyncio would print each as an
            # exception that was never retrieved.
            loop.set_exception_handler(lambda _, context: logger.debug("after a signal: %s", context.get("message")))
            logger.warning("%s: closing the actors; once more to end now", _NAMES[signal.Signals(came[0])])
            task.cancel()

        def on_signal(number: int, frame: FrameType | None) -> None:
            came.append(number)
            for each in _NAMES:
                signal.signal(each, signal.SIG_DFL)
            loop.call_soon_threadsafe(interrupt)

        # Not `loop.add_signal_handler`: a part of the work that takes signals for itself can give these back.
        before = {number: signal.signal(number, on_signal) for number in _NAMES}
        try:
            return await work
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    try:
        return asyncio.run(supervised())
    except BaseException as exc:
        if came and isinstance(exc, (asyncio.CancelledError, Exception)):
            # Whatever failed on the way out, the signal was the cause.
            raise (KeyboardInterrupt if came[0] == signal.SIGINT else StoppedError(_STOPPED)) from exc
        raise
