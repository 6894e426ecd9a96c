"""Rows and pictures that the data tests share."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image


def png_of(color: tuple[int, int, int], size: tuple[int, int] = (4, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def png() -> bytes:
    """A red picture, 4 pixels wide and 3 high."""
    return png_of((255, 0, 0))


@pytest.fixture
def make_png() -> Callable[..., bytes]:
    return png_of


@pytest.fixture
def make_row(png: bytes) -> Callable[..., dict[str, Any]]:
    """A good row of the RL-172K layout, with columns replaced or (value `...`) left out."""

    def build(**changes: Any) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": "s_0",
            "problem": "<image>How many discs?",
            "answer": ["4", "four"],
            "images": [{"bytes": png, "path": None}],
            "problem_type": "counting",
            "answer_type": "number",
            "source": "s",
            "prompt_type": "normal",
            "format_guidance": None,
            "data_source": "test",
            "solution": None,
            "options": None,
            "ability": None,
            "avg_reward": 0.25,
            "tokens": None,
        }
        row.update(changes)
        return {name: value for name, value in row.items() if value is not ...}

    return build
