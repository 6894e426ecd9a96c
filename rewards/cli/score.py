"""`rewards score`: the completions of a file through a pool, results as JSONL, a summary by type and status."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rewards.base import RewardResult, UnknownVerifier
from rewards.cli.app import UsageError
from rewards.libraries import missing_library
from rewards.request import Request

CHUNK = 1024


class Pool(Protocol):
    """What is used of `RewardPool` and `RemotePool`."""

    def check_names(self, names: Iterable[str]) -> None: ...

    def score_many(self, requests: Iterable[Request]) -> list[RewardResult]: ...


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file holds what is graded."""

    completion: str
    answer: str
    answer_type: str
    prompt: str
    as_type: str | None = None
    """Answer type of every row, in place of a column."""
    keep: tuple[str, ...] = ()
    """Columns copied to the results."""

    def request(self, row: Mapping[str, Any], where: str) -> Request:
        """The request of a row; its other columns become the sample.

        Raises:
            UsageError: a column is missing or of the wrong type.
        """
        wanted = [self.completion, self.answer] + ([] if self.as_type else [self.answer_type])
        missing = [name for name in wanted if row.get(name) is None]
        if missing:
            hint = "; set --type for all rows" if missing == [self.answer_type] else ""
            raise UsageError(f"{where}: no {', '.join(missing)}; it has {', '.join(row)}{hint}")
        completion, answer, prompt = row[self.completion], row[self.answer], row.get(self.prompt)
        answer_type = self.as_type or row[self.answer_type]
        texts = [(self.completion, completion), (self.answer_type, answer_type)]
        texts += [(self.prompt, prompt)] if prompt is not None else []
        for name, value in texts:
            if not isinstance(value, str):
                raise UsageError(f"{where}: {name} is a {type(value).__name__}; it must be text")
        golds = [str(item) for item in answer] if isinstance(answer, list) else str(answer)
        used = {self.completion, self.answer, self.answer_type, self.prompt}
        sample = {name: value for name, value in row.items() if name not in used and value is not None}
        return Request(completion, golds, answer_type, prompt, sample or None)


@dataclass(slots=True)
class Summary:
    """Counts of results by answer type and status, and sums of their values."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, answer_type: str, result: RewardResult) -> None:
        self.counts[answer_type][result.status] += 1
        self.sums[answer_type] += result.value or 0.0

    def mean(self, answer_type: str) -> float | None:
        """Mean value of the results that have one."""
        graded = self.counts[answer_type]["ok"] + self.counts[answer_type]["no_answer"]
        return self.sums[answer_type] / graded if graded else None


def score_file(pool: Pool, source: Path, target: Path, columns: Columns) -> Summary:
    """Grade every row; `target` appears whole, when all is done.

    Raises:
        UsageError: the file can't be read, or a row lacks what is needed.
    """
    rows, total = open_rows(source)
    summary = Summary()
    beside = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("w", encoding="utf-8") as file:
            for number, row, request, result in _graded(pool, rows, total, source, columns):
                kept = {name: row.get(name) for name in columns.keep}
                line = {"row": number, **kept, "answer_type": request.answer_type, **asdict(result)}
                file.write(json.dumps(line) + "\n")
                summary.add(request.answer_type, result)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return summary


def _graded(
    pool: Pool, rows: Iterator[Mapping[str, Any]], total: int, source: Path, columns: Columns
) -> Iterator[tuple[int, Mapping[str, Any], Request, RewardResult]]:
    """Rows with their results, some at a time, under a progress line."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    numbered = enumerate(rows)
    with Progress(TextColumn("graded"), MofNCompleteColumn(), TimeElapsedColumn(), console=_stderr()) as progress:
        task = progress.add_task("", total=total)
        while chunk := list(islice(numbered, CHUNK)):
            requests = [columns.request(row, f"{source}, row {number}") for number, row in chunk]
            _check_types(pool, requests, [f"{source}, row {number}" for number, _ in chunk])
            for (number, row), request, result in zip(chunk, requests, pool.score_many(requests), strict=True):
                yield number, row, request, result
            progress.advance(task, len(chunk))


def _check_types(pool: Pool, requests: Iterable[Request], places: Iterable[str]) -> None:
    """Raise `UsageError` with the place of the first request whose answer type the pool can't grade."""
    seen: set[str] = set()
    for request, where in zip(requests, places, strict=True):
        if request.answer_type in seen:
            continue
        try:
            pool.check_names([request.answer_type])
        except UnknownVerifier as exc:
            raise UsageError(f"{where}: {exc}; nothing was written") from exc
        seen.add(request.answer_type)


def open_rows(path: Path) -> tuple[Iterator[Mapping[str, Any]], int]:
    """Rows of a JSONL or parquet file, and how many there are.

    Raises:
        UsageError: no such file, or of another kind.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file; give a .jsonl or .parquet file")
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix in (".jsonl", ".json"):
        return _jsonl(path), _count_lines(path)
    raise UsageError(f"{path} is of no known kind; known: .jsonl, .parquet")


def show(summary: Summary) -> None:
    """The summary as a table, on the standard error."""
    from rich.table import Table

    from rewards.base import STATUSES

    seen = [status for status in STATUSES if any(counts[status] for counts in summary.counts.values())]
    table = Table("answer type", "rows", "mean", *seen)
    for answer_type, counts in sorted(summary.counts.items()):
        mean = summary.mean(answer_type)
        told = "" if mean is None else f"{mean:.3f}"
        table.add_row(answer_type, str(counts.total()), told, *(str(counts[status]) for status in seen))
    _stderr().print(table)


def _count_lines(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise UsageError(f"{path}, line {number}: not a line of JSON ({exc})") from exc
            if not isinstance(row, dict):
                raise UsageError(f"{path}, line {number}: holds a {type(row).__name__}, not a mapping of columns")
            yield row


def _parquet(path: Path) -> tuple[Iterator[Mapping[str, Any]], int]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as exc:
        raise missing_library(exc, "reading parquet") from exc
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as exc:
        raise UsageError(f"{path} is no readable parquet file ({exc})") from exc
    rows = (row for batch in file.iter_batches(batch_size=CHUNK) for row in batch.to_pylist())
    return rows, file.metadata.num_rows


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
