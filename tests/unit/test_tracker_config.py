"""Trackers that are switched on and not installed are said before a run."""

from __future__ import annotations

import importlib.util

from rl.config.metrics import TrackerConfig, WandbConfig


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else object())
    assert TrackerConfig(tensorboard=True).problems() == []
    (said,) = TrackerConfig(tensorboard=True, wandb=WandbConfig()).problems()
    assert said.startswith("tracker.wandb is on, and wandb is not installed: pip install")
