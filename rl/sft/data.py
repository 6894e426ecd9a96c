"""Supervised rows as training samples: prompt from the template, `solution` as the trained response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rl.batch.sequences import ImageTable, TrainingSample
from rl.config.sft import SFTDataConfig
from rl.data.formats import read_samples
from rl.errors import DataError
from rl.models.encoder import PromptEncoder
from rl.models.policy import extend_positions, prompt_positions
from rl.records import Sample


@dataclass(frozen=True, slots=True)
class SFTRow:
    sample: TrainingSample
    source: str


def load_rows(
    path: str, config: SFTDataConfig, encoder: PromptEncoder, model: object, images: ImageTable, limit: int | None = None
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
    return [SFTRow(_encode(sample, encoder, model, images), sample.source) for sample in samples]


def _encode(sample: Sample, encoder: PromptEncoder, model: object, images: ImageTable) -> TrainingSample:
    solution = sample.extra.get("solution")
    if not solution:
        raise DataError(f"row {sample.id} has no solution; SFT needs a target response in that column")
    prompt = encoder.encode(sample)
    for digest, pixels in zip(prompt.digests, prompt.images, strict=True):
        if digest not in images:
            images.add(digest, *encoder.process_images([pixels])[0])
    grids = [images.grid(digest) for digest in prompt.digests]
    prompt_ids = encoder.expand(prompt.token_ids, grids)
    response = encoder.tokenizer(str(solution), add_special_tokens=False)["input_ids"] + [encoder.eos_id]
    positions = extend_positions(prompt_positions(model, prompt_ids, grids), len(response))
    return TrainingSample(
        input_ids=np.concatenate([prompt_ids, np.asarray(response, dtype=np.int64)]),
        prompt_length=len(prompt_ids),
        position_ids=positions,
        trained=np.ones(len(response), dtype=bool),
        image_keys=prompt.digests,
    )


def epochs(rows: int, batch_size: int, seed: int) -> Iterator[Sequence[int]]:
    """Endless batches of row numbers, reshuffled each epoch; a batch may span two epochs."""
    rng = np.random.default_rng(seed)
    pending: list[int] = []
    while True:
        while len(pending) < batch_size:
            pending.extend(rng.permutation(rows).tolist())
        yield pending[:batch_size]
        pending = pending[batch_size:]
