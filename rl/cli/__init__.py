"""The command line. `main` is the entry point of `rl` and of `python -m rl`."""

from rl.cli.app import main

__all__ = ["main"]
