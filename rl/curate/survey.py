"""One pass over a dataset: every row is checked, and what the later comparisons need of it is kept, some 200 bytes.

Signatures and thumbnails, 1.3 KB a row, go to files in the work folder, so that memory does not grow with them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rl.config.clean import CleanConfig
from rl.curate import text
from rl.curate.duplicates import Prints
from rl.curate.golds import GoldGrader
from rl.curate.leaks import watch
from rl.curate.pictures import THUMB, Picture, Pictures
from rl.data.containers import BATCH_ROWS, RawRow, iter_rows
from rl.data.schema import REQUIRED_COLUMNS
from rl.data.validate import RowError, RowImageError, to_sample
from rl.errors import DataError
from rl.metrics.console import progress
from rl.records import Sample

NO_THUMB = bytes(THUMB * THUMB * 3)


@dataclass(frozen=True, slots=True)
class Removal:
    """Why a row goes."""

    reason: str
    detail: str
    other: str | None = None
    """The row or the evaluation sample that it repeats."""


@dataclass(slots=True)
class Survey:
    """What the pass found, in the dataset's order."""

    files: dict[Path, int] = field(default_factory=dict)
    file: array[int] = field(default_factory=lambda: array("l"))
    row: array[int] = field(default_factory=lambda: array("l"))
    ids: list[str | None] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    answer_types: list[str] = field(default_factory=list)
    removals: dict[int, Removal] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """Files that give no rows, with the reason"""
    exact: array[int] = field(default_factory=lambda: array("Q"))
    """Two entries a row; what these columns mean says `Prints`"""
    answers: array[int] = field(default_factory=lambda: array("Q"))
    context: array[int] = field(default_factory=lambda: array("Q"))
    hash: array[int] = field(default_factory=lambda: array("Q"))
    pictured: list[bool] = field(default_factory=list)
    leaks: dict[int, tuple[str, str]] = field(default_factory=dict)
    decoded: int = 0
    """Images that were decoded"""

    def __len__(self) -> int:
        return len(self.ids)

    def alive(self) -> np.ndarray:
        """bool [rows]: rows that nothing speaks against so far."""
        alive = np.ones(len(self), dtype=bool)
        alive[list(self.removals)] = False
        return alive

    def chosen(self, mask: np.ndarray) -> dict[Path, np.ndarray]:
        """The row numbers, per file, of the rows where bool [rows] `mask` is set."""
        file, row = np.array(self.file), np.array(self.row)
        return {path: row[mask & (file == number)] for path, number in self.files.items()}

    def remove(self, row: int, reason: str, detail: str, other: str | None = None) -> None:
        """The first reason counts."""
        self.removals.setdefault(row, Removal(reason, detail, other))

    def prints(self, work: Path, permutations: int) -> Prints:
        """What rows are compared by; signatures and thumbnails stay on disk."""
        count = len(self)
        on_disk = {"signature": (np.uint32, permutations), "thumb": (np.uint8, len(NO_THUMB))}
        maps = {
            name: np.memmap(work / name, dtype=kind, mode="r", shape=(count, width))
            if count
            else np.empty((0, width), dtype=kind)
            for name, (kind, width) in on_disk.items()
        }
        columns = {name: np.array(getattr(self, name), dtype=np.uint64) for name in ("answers", "context", "hash")}
        exact = np.array(self.exact, dtype=np.uint64).reshape(count, 2)
        return Prints(exact=exact, pictured=np.array(self.pictured, dtype=bool), **columns, **maps)


def survey(config: CleanConfig, work: Path) -> Survey:
    """Check every row of the dataset.

    Raises:
        DataError: no such dataset, or an evaluation set can't be read.
    """
    found = Survey()
    leaks = watch(config.decontaminate, config.images)
    pictures = Pictures(config.images)
    seen: set[str] = set()
    with (
        GoldGrader(config.golds) as grader,
        (work / "signature").open("wb") as signatures,
        (work / "thumb").open("wb") as thumbs,
        progress("checking rows", _row_count(Path(config.data))) as meter,
    ):
        for block in _blocks(iter_rows(config.data, REQUIRED_COLUMNS)):
            samples = [_parsed(found, raw, seen) for raw in block if _is_row(found, raw)]
            first = len(found) - len(samples)
            looks = [pictures.look(sample.images) if sample else [] for sample in samples]
            for i, (sample, looked) in enumerate(zip(samples, looks, strict=True)):
                if sample is not None:
                    _check(config, found, first + i, sample, looked)
            _grade(found, first, samples, grader)
            _print(found, samples, looks, signatures, thumbs, config.duplicates.permutations)
            for i, (sample, looked) in enumerate(zip(samples, looks, strict=True)):
                if sample is not None and first + i not in found.removals:
                    leaks.see(first + i, sample, looked)
            meter.advance(len(block))
    pictures.close()
    found.decoded = pictures.decoded
    found.leaks = leaks.found()
    return found


def _row_count(path: Path) -> int | None:
    """Rows of parquet files; None for other containers, which do not say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    try:
        return sum(pq.read_metadata(file).num_rows for file in files if file.suffix == ".parquet") or None
    except (pa.ArrowException, OSError):
        return None


def _blocks(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    block: list[RawRow] = []
    for raw in rows:
        block.append(raw)
        if len(block) == BATCH_ROWS:
            yield block
            block = []
    if block:
        yield block


def _is_row(found: Survey, raw: RawRow) -> bool:
    if raw.row is None or (raw.error is not None and raw.error.startswith("can't be read beyond")):
        found.unreadable.append(f"{raw.file}: {raw.error}")
        return False
    return True


def _parsed(found: Survey, raw: RawRow, seen: set[str]) -> Sample | None:
    """The row as a sample, or None with the reason noted."""
    assert raw.row is not None
    number = len(found)
    found.file.append(found.files.setdefault(raw.file, len(found.files)))
    found.row.append(raw.row)
    name = raw.values.get("id")
    found.ids.append(None if name is None else str(name))
    found.sources.append(sys.intern(str(raw.values.get("source"))))
    found.answer_types.append(sys.intern(str(raw.values.get("answer_type"))))
    try:
        sample = to_sample(raw)
    except RowError as exc:
        found.remove(number, "broken_image" if isinstance(exc, RowImageError) else "bad_row", str(exc))
        return None
    if sample.id in seen:
        found.remove(number, "repeated_id", f"an earlier row has the id {sample.id!r}")
    seen.add(sample.id)
    return sample


def _check(config: CleanConfig, found: Survey, row: int, sample: Sample, pictures: Sequence[Picture]) -> None:
    """The checks that need nothing but the row."""
    checks = config.text
    if not checks.min_problem <= len(sample.problem) <= checks.max_problem:
        wanted = f"{checks.min_problem} to {checks.max_problem}"
        found.remove(row, "problem_length", f"{len(sample.problem)} characters; wanted {wanted}")
    longest = max(len(answer) for answer in sample.answers)
    if longest > checks.max_answer:
        found.remove(row, "answer_length", f"{longest} characters; wanted at most {checks.max_answer}")
    if checks.languages:
        plain = text.letters(text.question(sample))
        if sum(sign.isalpha() for sign in plain) >= checks.min_letters:
            code = text.language(plain)
            if code not in checks.languages:
                found.remove(row, "language", f"{code}; wanted {', '.join(checks.languages)}")
    for number, picture in enumerate(pictures):
        if picture.problem is not None:
            found.remove(row, picture.kind, f"image {number}: {picture.problem}")


def _grade(found: Survey, first: int, samples: Sequence[Sample | None], grader: GoldGrader) -> None:
    places = [i for i, sample in enumerate(samples) if sample is not None and first + i not in found.removals]
    problems = grader.problems([sample for i in places if (sample := samples[i]) is not None])
    for i, problem in zip(places, problems, strict=True):
        if problem is not None:
            found.remove(first + i, *problem)


def _print(
    found: Survey,
    samples: Sequence[Sample | None],
    looks: Sequence[Sequence[Picture]],
    signatures: BinaryIO,
    thumbs: BinaryIO,
    permutations: int,
) -> None:
    """Note what rows are compared by; rows that are no samples get entries that nothing looks at."""
    questions = ["" if sample is None else text.question(sample) for sample in samples]
    signatures.write(text.signatures(questions, permutations).tobytes())
    for sample, question, pictures in zip(samples, questions, looks, strict=True):
        digests = tuple(picture.digest for picture in pictures)
        usable = [picture for picture in pictures if picture.problem is None]
        answers: Any = () if sample is None else tuple(sorted(text.squeezed(a).casefold() for a in sample.answers))
        plain = text.squeezed(question)
        found.exact.extend((text.key64(plain, digests), text.key64(digests, plain)))
        found.answers.append(text.key64(answers))
        found.context.append(text.key64(answers, text.numbers(question), digests[1:], bool(digests)))
        found.hash.append(usable[0].hash if usable else 0)
        found.pictured.append(bool(digests))
        thumbs.write(usable[0].thumb if usable else NO_THUMB)


def require_rows(found: Survey, path: str) -> None:
    """Raise `DataError` where a file can't be read, or nothing is there."""
    if found.unreadable:
        raise DataError(f"{path} can't be read as a whole; mend or take out: {'; '.join(found.unreadable)}")
    if not len(found):
        raise DataError(f"{path} holds no rows")
