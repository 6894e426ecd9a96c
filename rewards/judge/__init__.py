"""Judges: language models behind OpenAI-compatible endpoints that grade what no rule can."""

from __future__ import annotations

from rewards.judge.pool import JUDGED, JudgePool, default_judge
from rewards.judge.settings import JudgeConfig

__all__ = ["JUDGED", "JudgeConfig", "JudgePool", "default_judge"]
