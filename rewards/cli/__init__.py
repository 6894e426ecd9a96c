"""The command line. `main` is the entry point of `rewards` and of `python -m rewards`."""

from rewards.cli.app import main

__all__ = ["main"]
