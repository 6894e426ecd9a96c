"""Asynchronous RL post-training for scientific multimodal models."""

__version__ = "0.1.0"
