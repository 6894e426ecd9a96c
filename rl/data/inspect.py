"""What a dataset holds, in counts and lengths, and the table that shows it."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rl.data.formats import Layout, iter_pairs
from rl.data.images import decode_image
from rl.data.validate import BadRow
from rl.errors import DataError

SHOWN_BAD_ROWS = 20
DECODED_PIXELS = 512 * 512


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, median (the lower of two middle ones) and largest of some numbers; zeros when there are none."""

    low: int
    median: int
    high: int

    @classmethod
    def of(cls, numbers: list[int]) -> Spread:
        if not numbers:
            return cls(0, 0, 0)
        ordered = sorted(numbers)
        return cls(ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])

    def __str__(self) -> str:
        return f"{self.low} / {self.median} / {self.high}"


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of the usable rows, and the rows that can't be used."""

    path: str
    rows: int
    sources: Counter[str]
    problem_types: Counter[str]
    answer_types: Counter[str]
    prompt_types: Counter[str]
    images_per_row: Counter[int]
    image_sizes: Counter[tuple[int, int]]
    """(width, height) in pixels as stored."""
    problem_chars: Spread
    answer_chars: Spread
    """Of the first accepted answer."""
    bad_rows: list[BadRow] = field(default_factory=list)
    """What can't be used: rows, and files of which no row was read."""

    @property
    def bad(self) -> str:
        """How many of both, in words."""
        files = sum(bad.row is None for bad in self.bad_rows)
        counts = ((files, "file"), (len(self.bad_rows) - files, "row"))
        return " and ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count)


def summarise(path: str | Path, layout: Layout = "rl172k") -> Summary:
    """Read the whole dataset of a layout and decode its images, bad rows left out and listed.

    Raises:
        DataError: no such dataset.
    """
    bad: list[BadRow] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("source", "problem", "answer", "prompt")}
    per_row: Counter[int] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    problem_chars, answer_chars = [], []
    for raw, sample in iter_pairs(path, on_bad="skip", report=bad, layout=layout):
        try:
            found = [_size(data) for data in sample.images]
        except DataError as exc:
            bad.append(BadRow(str(raw.file), raw.row, str(exc)))
            continue
        counts["source"][sample.source] += 1
        counts["problem"][sample.problem_type] += 1
        counts["answer"][sample.answer_type] += 1
        counts["prompt"][sample.prompt_type] += 1
        per_row[len(sample.images)] += 1
        sizes.update(found)
        problem_chars.append(len(sample.problem))
        answer_chars.append(len(sample.answers[0]))
    return Summary(
        path=str(path),
        rows=len(problem_chars),
        sources=counts["source"],
        problem_types=counts["problem"],
        answer_types=counts["answer"],
        prompt_types=counts["prompt"],
        images_per_row=per_row,
        image_sizes=sizes,
        problem_chars=Spread.of(problem_chars),
        answer_chars=Spread.of(answer_chars),
        bad_rows=bad,
    )


def render(summary: Summary, console: Console) -> None:
    """Print the summary: one table of counts, then the bad rows, if any."""
    console.print(f"{summary.path}: {summary.rows} usable rows", markup=False, highlight=False, soft_wrap=True)
    table = Table()
    table.add_column("what")
    table.add_column("value")
    table.add_column("rows", justify="right")
    _add(table, "source", dict(summary.sources.most_common()))
    _add(table, "problem type", dict(summary.problem_types.most_common()))
    _add(table, "answer type", dict(summary.answer_types.most_common()))
    _add(table, "prompt type", dict(summary.prompt_types.most_common()))
    _add(table, "images in a row", {str(key): n for key, n in sorted(summary.images_per_row.items())})
    _add(table, "image size", {f"{w} x {h}": n for (w, h), n in summary.image_sizes.most_common(10)})
    if len(summary.image_sizes) > 10:
        table.add_row("", f"and {len(summary.image_sizes) - 10} other sizes", "")
    table.add_row("problem length", f"{summary.problem_chars} characters (least / median / most)", "")
    table.add_row("answer length", f"{summary.answer_chars} characters (least / median / most)", "")
    console.print(table)
    if not summary.bad_rows:
        return
    console.print(f"[red]{summary.bad} can't be used[/red]")
    for bad in summary.bad_rows[:SHOWN_BAD_ROWS]:
        console.print(f"  {bad}", markup=False, highlight=False, soft_wrap=True)
    if len(summary.bad_rows) > SHOWN_BAD_ROWS:
        console.print(f"  and {len(summary.bad_rows) - SHOWN_BAD_ROWS} more")


def _add(table: Table, what: str, counts: dict[str, int]) -> None:
    for number, (name, count) in enumerate(counts.items()):
        table.add_row(what if number == 0 else "", escape(name), str(count))  # names come from the data


def _size(data: bytes) -> tuple[int, int]:
    """Width and height as stored, once the pixels could be decoded: a cut-off JPEG still opens."""
    decode_image(data, DECODED_PIXELS)
    with Image.open(io.BytesIO(data)) as image:
        return image.size
