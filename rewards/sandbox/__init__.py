"""Runs untrusted code: files in, files out, nothing else. See `Sandbox`."""

from rewards.sandbox.box import PYTHON_FLAGS, SCRATCH, Sandbox
from rewards.sandbox.probe import Capabilities, capabilities
from rewards.sandbox.records import Command, Finished, Isolation, Limits, Report, SandboxUnavailable
from rewards.sandbox.view import SYSTEM_TOOLS

__all__ = [
    "PYTHON_FLAGS",
    "SCRATCH",
    "SYSTEM_TOOLS",
    "Capabilities",
    "Command",
    "Finished",
    "Isolation",
    "Limits",
    "Report",
    "Sandbox",
    "SandboxUnavailable",
    "capabilities",
]
