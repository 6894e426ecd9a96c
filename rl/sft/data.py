"""Supervised rows as training samples: prompt from the template, `solution` as the trained response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rl.batch.sequences import ImageTable, TrainingSample
from rl.config.sft import SFTDataConfig
from rl.data.formats import read_samples
from rl.errors import DataError
from rl.models.encoder import EncodedPrompt, PromptEncoder
from rl.models.policy import extend_positions, prompt_positions
from rl.records import Sample

CHUNK = 256
"""Rows whose images are processed together."""


@dataclass(frozen=True, slots=True)
class SFTRow:
    sample: TrainingSample
    source: str


def load_rows(
    path: str,
    config: SFTDataConfig,
    encoder: PromptEncoder,
    model: object,
    images: ImageTable,
    limit: int | None = None,
) -> list[SFTRow]:
    """Read, filter by source and encode. Raises DataError when a row has no `solution` or nothing is left."""
    samples = [
        sample
        for sample in read_samples(path, on_bad=config.on_bad_row)
        if config.sources is None or sample.source in config.sources
    ]
    if limit is not None and len(samples) > limit:
        stride = len(samples) / limit
        samples = [samples[int(i * stride)] for i in range(limit)]
    if not samples:
        raise DataError(f"{path} has no rows of sources {config.sources}; set data.sources to those it holds")
    encode = _RowEncoder(encoder, model, images)
    chunks = (samples[i : i + CHUNK] for i in range(0, len(samples), CHUNK))
    return [row for chunk in chunks for row in encode(chunk)]


class _RowEncoder:
    """Encodes rows in chunks: one call of the image processor for each, positions worked out once per prompt shape."""

    def __init__(self, encoder: PromptEncoder, model: object, images: ImageTable) -> None:
        self.encoder, self.model, self.images = encoder, model, images
        self._positions: dict[tuple[bytes, tuple[tuple[int, ...], ...]], np.ndarray] = {}

    def __call__(self, samples: Sequence[Sample]) -> list[SFTRow]:
        prompts = [self.encoder.encode(sample) for sample in samples]
        pairs = (pair for prompt in prompts for pair in zip(prompt.digests, prompt.images, strict=True))
        new = {digest: pixels for digest, pixels in pairs if digest not in self.images}
        for digest, processed in zip(new, self.encoder.process_images(list(new.values())), strict=True):
            self.images.add(digest, *processed)
        rows = zip(samples, prompts, strict=True)
        return [SFTRow(self._row(sample, prompt), sample.source) for sample, prompt in rows]

    def _row(self, sample: Sample, prompt: EncodedPrompt) -> TrainingSample:
        solution = sample.extra.get("solution")
        if not solution:
            raise DataError(f"row {sample.id} has no solution; SFT needs a target response in that column")
        grids = [self.images.grid(digest) for digest in prompt.digests]
        prompt_ids = self.encoder.expand(prompt.token_ids, grids)
        response = [*self.encoder.tokenizer(str(solution), add_special_tokens=False)["input_ids"], self.encoder.eos_id]
        return TrainingSample(
            input_ids=np.concatenate([prompt_ids, np.asarray(response, dtype=np.int64)]),
            prompt_length=len(prompt_ids),
            position_ids=extend_positions(self._prompt_positions(prompt_ids, grids), len(response)),
            trained=np.ones(len(response), dtype=bool),
            image_keys=prompt.digests,
        )

    def _prompt_positions(self, prompt_ids: np.ndarray, grids: list[torch.Tensor]) -> np.ndarray:
        """As `prompt_positions`, which depends on where the image tokens stand and on nothing else of the text."""
        image_id = getattr(self.encoder.config, "image_token_id", None)
        key = ((prompt_ids == image_id).tobytes(), tuple(tuple(grid.tolist()) for grid in grids))
        if key not in self._positions:
            self._positions[key] = prompt_positions(self.model, prompt_ids, grids)
        return self._positions[key]


def batches(
    rows: Sequence[SFTRow], weights: Mapping[str, float], batch_size: int, seed: int
) -> Iterator[Sequence[int]]:
    """Endless batches of row numbers: by `epochs` over all rows, or with weights each source in epochs of its own.

    Raises:
        DataError: a weight for a source of which there are no rows.
    """
    if not weights:
        return epochs(len(rows), batch_size, seed)
    numbers: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        numbers.setdefault(row.source, []).append(i)
    missing = sorted(set(weights) - set(numbers))
    if missing:
        raise DataError(f"data.weights name {', '.join(missing)}, but the rows are of {', '.join(sorted(numbers))}")
    return _weighted(numbers, weights, batch_size, seed)


def _weighted(
    numbers: Mapping[str, Sequence[int]], weights: Mapping[str, float], batch_size: int, seed: int
) -> Iterator[Sequence[int]]:
    rng = np.random.default_rng(seed)
    share = np.array([weights.get(source, 1.0) for source in numbers])
    rows = list(numbers.values())
    orders = [epochs(len(part), 1, seed + 1 + i) for i, part in enumerate(rows)]
    while True:
        drawn = rng.choice(len(rows), batch_size, p=share / share.sum()).tolist()
        yield [rows[i][next(orders[i])[0]] for i in drawn]


def epochs(rows: int, batch_size: int, seed: int) -> Iterator[Sequence[int]]:
    """Endless batches of row numbers, reshuffled each epoch; a batch may span two epochs."""
    rng = np.random.default_rng(seed)
    pending: list[int] = []
    while True:
        while len(pending) < batch_size:
            pending.extend(rng.permutation(rows).tolist())
        yield pending[:batch_size]
        pending = pending[batch_size:]
