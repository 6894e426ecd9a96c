"""Image-text similarity in a CLIP-like model from a local folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from rl.data.images import decode_image

PIXELS = 1024 * 1024


class Similarity:
    """Cosine of an image and texts.

    Texts longer than the model takes are cut into runs of sentences, each as long as it takes, and their directions
    averaged: a plain cut would judge a long caption by its beginning.
    """

    def __init__(self, folder: str) -> None:
        from transformers import AutoModel, AutoProcessor

        self._model: Any = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
        self._processor: Any = AutoProcessor.from_pretrained(folder)
        self._most = int(self._model.config.text_config.max_position_embeddings)

    def __call__(self, image: bytes, texts: Sequence[str]) -> list[float]:
        """Cosines in [-1, 1]; an empty text has 0.

        Raises:
            DataError: the image can't be decoded.
        """
        picture = Image.fromarray(decode_image(image, PIXELS))
        seen = _direction(self._model.get_image_features(**self._processor(images=picture, return_tensors="pt")))
        return [float(np.dot(seen, self.direction(text))) if text.strip() else 0.0 for text in texts]

    def direction(self, text: str) -> np.ndarray:
        """Unit vector of a text that is not empty: float64 [dimensions]."""
        pieces = self.pieces(text)
        settings = {"return_tensors": "pt", "padding": True, "truncation": True, "max_length": self._most}
        directions = self._model.get_text_features(**self._processor(text=pieces, **settings))
        mean = np.mean([_direction(row[None]) for row in _tensor(directions)], axis=0)
        length = float(np.linalg.norm(mean))
        return mean / length if length else mean

    def pieces(self, text: str) -> list[str]:
        """Runs of sentences that fit; a sentence that does not fit stands alone, and is cut."""
        found: list[str] = []
        for sentence in re.split(r"(?<=[.!?;])\s+", text.strip()):
            longer = f"{found[-1]} {sentence}" if found else sentence
            if found and len(self._processor.tokenizer(longer, verbose=False)["input_ids"]) <= self._most:
                found[-1] = longer
            else:
                found.append(sentence)
        return found


def _tensor(features: Any) -> Any:
    return getattr(features, "pooler_output", features)


def _direction(features: Any) -> np.ndarray:
    vector = np.asarray(_tensor(features)[0].numpy(), dtype=np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
