"""Ctrl-C in work that owns actors, in this process and in one of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from rl.interruptible import run_interruptible

CHILD = """
import asyncio, signal, sys
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
"""


def test_work_is_closed_and_the_handler_is_given_back():
    before, closed = signal.getsignal(signal.SIGINT), []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(work())
    assert closed == [True] and signal.getsignal(signal.SIGINT) is before


def test_a_failure_on_the_way_out_is_ctrl_c_too():
    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("an actor died before it closed")

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(work())


def test_results_and_failures_come_through():
    async def gives() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("wrong")

    assert run_interruptible(gives()) == 7
    with pytest.raises(ValueError, match="wrong"):
        run_interruptible(fails())


@pytest.mark.parametrize(("mode", "code"), [("", 130), ("stuck", -signal.SIGINT)])
def test_nothing_is_printed_and_a_second_ctrl_c_ends_what_does_not_close(mode: str, code: int):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "closed\n"
    if mode:
        child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert err == "Ctrl-C: closing the actors; once more to end now\n"
