"""Synthetic tasks with rendered pictures, in the layout of the RL-172K set."""

from rl.data.synth.generate import generate
from rl.data.synth.rows import POOLS, TASKS, make_row

__all__ = ["POOLS", "TASKS", "generate", "make_row"]
