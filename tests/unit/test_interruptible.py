"""Ctrl-C and SIGTERM in work that owns actors, in this process and in one of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from rl.errors import StoppedError
from rl.interruptible import run_interruptible

RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: StoppedError}

CHILD = """
import asyncio, sys
from rl.errors import StoppedError
from rl.interruptible import run_interruptible

async def call():
    try:
        await asyncio.Event().wait()
    finally:
        raise RuntimeError("an actor died")

async def work():
    try:
        left = asyncio.gather(call())  # nobody waits for it: asyncio would print how it ends
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        print("closed", flush=True)
        if "stuck" in sys.argv:
            await asyncio.Event().wait()

try:
    run_interruptible(work())
except KeyboardInterrupt:
    sys.exit(130)
except StoppedError:
    sys.exit(75)
"""


@pytest.mark.parametrize("number", RAISED)
def test_work_is_closed_and_the_handlers_are_given_back(number: signal.Signals):
    before, closed = [signal.getsignal(each) for each in RAISED], []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    with pytest.raises(RAISED[number]):
        run_interruptible(work())
    assert closed == [True] and [signal.getsignal(each) for each in RAISED] == before


@pytest.mark.parametrize("number", RAISED)
def test_a_failure_on_the_way_out_is_the_signal_too(number: signal.Signals):
    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("an actor died before it closed")

    with pytest.raises(RAISED[number]):
        run_interruptible(work())


def test_results_and_failures_come_through():
    async def gives() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("wrong")

    assert run_interruptible(gives()) == 7
    with pytest.raises(ValueError, match="wrong"):
        run_interruptible(fails())


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 75)])
@pytest.mark.parametrize("mode", ["", "stuck"])
def test_nothing_is_printed_and_a_second_signal_ends_what_does_not_close(
    number: signal.Signals, name: str, code: int, mode: str
):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    assert child.stdout.readline() == "closed\n"
    if mode:
        child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == (-number if mode else code)
    assert err == f"{name}: closing the actors; once more to end now\n"
