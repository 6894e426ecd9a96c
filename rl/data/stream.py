"""Datasets larger than the memory: names of all rows without their images, and chosen rows from one file to another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from rl.data.containers import BATCH_ROWS, RawRow, data_files, iter_rows, missing_text
from rl.data.formats import OnBad, sample_to_row
from rl.data.schema import CORE_COLUMNS, EXTRA_COLUMNS, core_type, infer_schema, rows_to_table, with_feature_metadata
from rl.data.validate import BadRow
from rl.errors import DataError
from rl.records import Sample

if TYPE_CHECKING:
    import pyarrow as pa

NAME_COLUMNS = ("id", "source", "problem_type")
FLUSH_ROWS = 1024
"""Rows that a writer gathers: with images of 100 KB this is 100 MB."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A text column with few different values: `names[codes[i]]` is the value of row i."""

    names: tuple[str, ...]
    codes: np.ndarray
    """int32 [rows]"""

    def value(self, row: int) -> str:
        return self.names[self.codes[row]]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The rows of a dataset by name, in its order."""

    path: Path
    ids: list[str]
    source: Coded
    problem_type: Coded
    files: tuple[Path, ...]
    file: np.ndarray
    """int32 [rows]: index into `files`"""
    row: np.ndarray
    """int64 [rows]: 0-based number in its file"""

    def __len__(self) -> int:
        return len(self.ids)

    def index(self) -> dict[str, int]:
        """Row by id."""
        return {sample_id: row for row, sample_id in enumerate(self.ids)}

    def chosen(self, mask: np.ndarray) -> dict[Path, np.ndarray]:
        """The row numbers, per file, of the rows where bool [rows] `mask` is set."""
        return {path: self.row[mask & (self.file == number)] for number, path in enumerate(self.files)}


def read_catalogue(path: str | Path, *, on_bad: OnBad = "raise") -> Catalogue:
    """Names of all rows; of parquet files only these columns are read.

    Raises:
        DataError: no such dataset; under `raise` a row without a name; an id that stands twice.
    """
    path = Path(path)
    ids: list[str] = []
    columns: dict[str, _Coder] = {"source": _Coder(), "problem_type": _Coder()}
    files: dict[Path, int] = {}
    places: list[tuple[int, np.ndarray]] = []
    for file, numbers, names, error in _name_blocks(path):
        if error is not None:
            if on_bad == "raise":
                raise DataError(f"{error}; mend the row, or read with on_bad_row: skip")
            continue
        ids += names["id"]
        for name, coder in columns.items():
            coder.add(names[name])
        places.append((files.setdefault(file, len(files)), numbers))
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"{path} holds the id {twice!r} more than once; ids name samples, make them unique")
    coded = {name: coder.done() for name, coder in columns.items()}
    if not places:
        raise DataError(f"{path} holds no usable row; `rl data inspect` lists why")
    file_codes = np.concatenate([np.full(len(rows), number, dtype=np.int32) for number, rows in places])
    rows = np.concatenate([rows for _, rows in places])
    return Catalogue(path, ids, coded["source"], coded["problem_type"], tuple(files), file_codes, rows)


def iter_chosen(path: str | Path, chosen: Mapping[Path, np.ndarray]) -> Iterator[RawRow]:
    """The rows with these numbers, per file, in the order of the dataset; parquet row groups without any are skipped."""
    path = Path(path)
    if path.is_dir() and (path / "state.json").exists():
        wanted = set(chosen.get(path, np.empty(0)).tolist())
        yield from (raw for raw in iter_rows(path) if raw.row in wanted)
        return
    for file in data_files(path):
        numbers = chosen.get(file, np.empty(0, dtype=np.int64))
        if not len(numbers):
            continue
        if file.suffix == ".parquet":
            yield from _chosen_parquet(file, np.sort(numbers))
        else:
            wanted = set(numbers.tolist())
            yield from (raw for raw in iter_rows(file) if raw.row in wanted)


def stream_schema(path: str | Path) -> pa.Schema:
    """The layout's schema with the carried-through columns as the dataset's files have them.

    Raises:
        DataError: a carried-through column has types in different files that don't go together.
    """
    import pyarrow as pa

    extras: list[pa.Schema] = []
    for part in _file_schemas(Path(path)):
        names = [name for name in part.names if name not in CORE_COLUMNS]
        extras.append(pa.schema([part.field(name).remove_metadata() for name in names]))
    try:
        merged = pa.unify_schemas(extras, promote_options="permissive") if extras else pa.schema([])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
        raise DataError(f"{path}: the files' columns are of types that don't go together ({exc})") from exc
    kinds = {name: core_type(name) for name in (*CORE_COLUMNS, *EXTRA_COLUMNS)}
    for field in merged:
        null = pa.types.is_null(field.type) or field.type == pa.list_(pa.null())
        kinds[field.name] = core_type(field.name) if null else field.type
    kinds["avg_reward"] = core_type("avg_reward")
    return with_feature_metadata(pa.schema(list(kinds.items())))


class SampleWriter:
    """Writes samples as they come to one parquet file, or to a folder of shards; they appear when it is closed.

    Left by an exception, it removes what it wrote.

    Example:
        with SampleWriter(Path("rl_set.parquet"), stream_schema(source)) as writer:
            writer.add(sample)
    """

    def __init__(self, path: Path, schema: pa.Schema, shard_rows: int | None = None) -> None:
        self.path, self._schema, self._shard_rows = path, schema, shard_rows
        self.rows = 0
        self._pending: list[dict[str, Any]] = []
        self._partials: list[Path] = []
        self._writer: Any = None
        self._in_shard = 0
        (path if shard_rows else path.parent).mkdir(parents=True, exist_ok=True)

    def add(self, sample: Sample) -> None:
        self._pending.append(sample_to_row(sample))
        self.rows += 1
        if len(self._pending) >= min(FLUSH_ROWS, self._shard_rows or FLUSH_ROWS):
            self._flush()

    def close(self) -> list[Path]:
        """Give the files their names; returns them in order."""
        self._flush()
        if self._writer is None and not self._partials:
            self._open()
        self._end_shard()
        if self._shard_rows is None:
            targets = [self.path]
        else:
            for stale in self.path.glob("data-*-of-*.parquet"):
                stale.unlink()
            count = len(self._partials)
            targets = [self.path / f"data-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
        for partial, target in zip(self._partials, targets, strict=True):
            os.replace(partial, target)
        return targets

    def discard(self) -> None:
        """Remove what is written."""
        self._end_shard()
        for partial in self._partials:
            partial.unlink(missing_ok=True)

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close() if kind is None else self.discard()

    def _open(self) -> None:
        import pyarrow.parquet as pq

        if self._shard_rows is None:
            partial = self.path.with_name(self.path.name + ".partial")
        else:
            partial = self.path / f"{len(self._partials):05d}.partial"
        self._partials.append(partial)
        self._writer, self._in_shard = pq.ParquetWriter(partial, self._schema), 0

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        try:
            table = rows_to_table(self._pending, self._schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
            raise DataError(f"{self.path} can't be written: a carried-through column changes its type ({exc})") from exc
        self._pending = []
        while table.num_rows:
            if self._writer is None:
                self._open()
            room = table.num_rows if self._shard_rows is None else self._shard_rows - self._in_shard
            part, table = table.slice(0, room), table.slice(room)
            self._writer.write_table(part)
            self._in_shard += part.num_rows
            if self._in_shard == self._shard_rows:
                self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _Coder:
    """Turns texts into codes, block by block."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._blocks: list[np.ndarray] = []

    def add(self, values: list[str]) -> None:
        codes = self._codes
        self._blocks.append(
            np.fromiter((codes.setdefault(value, len(codes)) for value in values), np.int32, count=len(values))
        )

    def done(self) -> Coded:
        empty = np.empty(0, dtype=np.int32)
        return Coded(tuple(self._codes), np.concatenate(self._blocks) if self._blocks else empty)


_Block = tuple[Path, np.ndarray, dict[str, list[str]], str | None]


def _name_blocks(path: Path) -> Iterator[_Block]:
    """(file, row numbers, name columns, None), or an error for a file or a row."""
    if not path.exists() or (path.is_dir() and any((path / name).exists() for name in ("state.json",))):
        yield from _named(iter_rows(path))
        return
    for file in data_files(path):
        yield from _parquet_names(file) if file.suffix == ".parquet" else _named(iter_rows(file))


def _parquet_names(file: Path) -> Iterator[_Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    none = np.empty(0, dtype=np.int64)
    start = 0
    try:
        with pq.ParquetFile(file) as parquet:
            missing = [name for name in NAME_COLUMNS if name not in parquet.schema_arrow.names]
            if missing:
                yield file, none, {}, f"{file}: {missing_text(missing, parquet.schema_arrow.names)}"
                return
            for batch in parquet.iter_batches(batch_size=1 << 16, columns=list(NAME_COLUMNS)):
                columns = {name: batch.column(name).to_pylist() for name in NAME_COLUMNS}
                if all(type(value) is str and value for column in columns.values() for value in column):
                    yield file, np.arange(start, start + batch.num_rows), columns, None
                else:
                    yield from _named(RawRow(file, start + i, row) for i, row in enumerate(batch.to_pylist()))
                start += batch.num_rows
    except (pa.ArrowException, OSError) as exc:
        yield file, none, {}, f"{file} can't be read beyond row {start} ({exc})"


def _named(rows: Iterator[RawRow]) -> Iterator[_Block]:
    for raw in rows:
        at = np.array([0 if raw.row is None else raw.row])
        problem = raw.error
        values = {name: raw.values.get(name) for name in NAME_COLUMNS} if problem is None else {}
        if isinstance(values.get("id"), int) and not isinstance(values.get("id"), bool):
            values["id"] = str(values["id"])
        wrong = [name for name, value in values.items() if not isinstance(value, str) or not value.strip()]
        if problem is None and wrong:
            problem = f"{', '.join(wrong)} must be text; got {', '.join(repr(values[name])[:40] for name in wrong)}"
        error = None if problem is None else str(BadRow(str(raw.file), raw.row, problem))
        yield raw.file, at, {name: [str(value)] for name, value in values.items()}, error


def _chosen_parquet(file: Path, numbers: np.ndarray) -> Iterator[RawRow]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as parquet:
        start = 0
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            low, high = np.searchsorted(numbers, (start, end))
            if low < high:
                begin = start
                for batch in parquet.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    first, last = np.searchsorted(numbers, (begin, begin + batch.num_rows))
                    rows = numbers[first:last]
                    for number, values in zip(rows.tolist(), batch.take(rows - begin).to_pylist(), strict=True):
                        yield RawRow(file, number, values)
                    begin += batch.num_rows
            start = end


def _file_schemas(path: Path) -> Iterator[pa.Schema]:
    import pyarrow.parquet as pq

    if path.is_dir() and (path / "state.json").exists():
        import datasets

        yield datasets.load_from_disk(str(path)).features.arrow_schema
        return
    for file in data_files(path):
        if file.suffix == ".parquet":
            yield pq.read_schema(file)
            continue
        block: list[dict[str, Any]] = []
        for raw in iter_rows(file):
            block.append({name: value for name, value in raw.values.items() if name not in CORE_COLUMNS})
            if len(block) == FLUSH_ROWS:
                yield infer_schema(block)
                block = []
        if block:
            yield infer_schema(block)
