"""What evaluation sets hold: word n-grams and images, to be found among training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rl.config.clean import Decontamination, ImageChecks
from rl.curate.pictures import Picture, PictureIndex, Pictures
from rl.curate.text import question, words
from rl.data.formats import iter_samples
from rl.records import Sample

MOST_GRAMS = 64
"""Shared n-grams that are remembered of one row."""


@dataclass(slots=True)
class Leaks:
    """Watches rows go by, and says at the end which of them an evaluation set holds.

    Only at the end: an n-gram that many rows share is boilerplate, as GPT-3's decontamination has it (arXiv
    2005.14165, appendix C), and how many do is not known before.
    """

    config: Decontamination
    grams: dict[int, int]
    """Hash of an evaluation n-gram -> its number"""
    owner: list[str]
    """Evaluation sample by number of n-gram"""
    images: PictureIndex
    counts: np.ndarray
    """int64 [n-grams]: rows that hold it"""
    texts: dict[int, np.ndarray] = field(default_factory=dict)
    """Row -> numbers of the evaluation n-grams that it holds"""
    pictured: dict[int, str] = field(default_factory=dict)
    """Row -> evaluation sample with the same image"""
    with_images: set[int] = field(default_factory=set)
    """Rows of `texts` that have images"""

    def see(self, row: int, sample: Sample, pictures: Sequence[Picture]) -> None:
        """Remember what a row shares with the evaluation sets."""
        if not self.config.against:
            return
        for picture in pictures:
            name = self.images.find(picture)
            if name is not None:
                self.pictured[row] = name
                break
        if pictures and self.config.image_rows == "image":
            return
        held = {self.grams[gram] for gram in _grams(sample, self.config.ngram) if gram in self.grams}
        if held:
            numbers = np.array(sorted(held), dtype=np.int64)
            self.counts[numbers] += 1
            self.texts[row] = numbers[:: -(-len(numbers) // MOST_GRAMS)]
            if pictures:
                self.with_images.add(row)

    def found(self) -> dict[int, tuple[str, str]]:
        """Row -> (`leaked_text` or `leaked_image`, evaluation sample)."""
        texts = {}
        for row, numbers in self.texts.items():
            rare = numbers[self.counts[numbers] < self.config.common_from]
            if len(rare):
                texts[row] = self.owner[rare[0]]
        leaks = {}
        for row, name in self.pictured.items():
            if self.config.image_rows != "both" or row in texts:
                leaks[row] = ("leaked_image", name)
        for row, name in texts.items():
            if row not in self.with_images or self.config.image_rows == "either":
                leaks.setdefault(row, ("leaked_text", name))
        return leaks


def watch(config: Decontamination, checks: ImageChecks) -> Leaks:
    """Read the evaluation sets.

    Raises:
        DataError: one can't be read.
    """
    grams: dict[int, int] = {}
    owner: list[str] = []
    pictures: list[Picture] = []
    names: list[str] = []
    looker = Pictures(checks)
    for path in config.against:
        for sample in iter_samples(path):
            name = f"{sample.id} of {Path(path).name}"
            for gram in _grams(sample, config.ngram):
                if grams.setdefault(gram, len(owner)) == len(owner):
                    owner.append(name)
            for picture in looker.look(sample.images):
                if picture.problem is None:
                    pictures.append(picture)
                    names.append(name)
    looker.close()
    return Leaks(config, grams, owner, PictureIndex(pictures, names), np.zeros(len(owner), dtype=np.int64))


def _grams(sample: Sample, size: int) -> set[int]:
    """Hashes of the runs of `size` words; of a shorter text that of the whole."""
    found = words(question(sample))
    return {hash(tuple(found[i : i + size])) for i in range(max(1, len(found) - size + 1))} if found else set()
