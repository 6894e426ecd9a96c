"""Writes the synthetic splits as parquet: no (problem, image) pair twice, neither in a split nor in two of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rl.config.data import SplitConfig, SynthConfig
from rl.data.schema import infer_schema, rows_to_table
from rl.data.synth.plant import plant
from rl.data.synth.rows import make_row
from rl.errors import DataError

DRAWS_PER_ROW = 30
"""Duplicates are drawn again; a family that needs more draws than this per row is as good as used up."""


def generate(config: SynthConfig, console: Console | None = None) -> dict[str, Path]:
    """Write every split; the same config gives the same bytes.

    Returns:
        split -> `{out}/{split}.parquet`, or the folder `{out}/{split}` of `{split}-00000-of-00002.parquet` shards
        where the split has more than `shard_rows` rows.
    Raises:
        DataError: a family holds fewer different rows than asked for.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    written: dict[str, Path] = {}
    made: dict[str, list[dict[str, Any]]] = {}
    to_leak = {split.leak_from for split in config.splits.values()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name, split in config.splits.items():
            total = sum(split.count.values())
            bar = progress.add_task(f"split {name}", total=total)
            rows: list[dict[str, Any]] = []
            for row in _split_rows(config, name, split, seen):
                rows.append(row)
                progress.advance(bar)
            if name in to_leak:
                made[name] = rows
            rows = plant(split.plant, rows, made.get(split.leak_from or "", ()), name, config.seed)
            written[name] = _write(rows, out, name, config.shard_rows)
    return written


def _split_rows(config: SynthConfig, name: str, split: SplitConfig, seen: set[bytes]) -> Iterator[dict[str, Any]]:
    """The split's rows, family after family; a row drawn twice is passed over, so the numbers in ids may have gaps."""
    for source, count in split.count.items():
        found = 0
        for index in range(DRAWS_PER_ROW * count):
            if found == count:
                break
            row = make_row(source, name, index, config.seed, config.image_size, split.pool)
            digest = content_digest(row)
            if digest not in seen:
                seen.add(digest)
                found += 1
                yield row
        if found < count:
            raise DataError(
                f"split {name!r} asks for {count} rows of {source}, but only {found} different ones are left; "
                f"set splits.{name}.count.{source} to at most {found}, counting what other splits of its pool take"
            )


def content_digest(row: dict[str, Any]) -> bytes:
    """sha256 over the problem and the image bytes of a row."""
    digest = hashlib.sha256(row["problem"].encode())
    for image in row["images"]:
        digest.update(hashlib.sha256(image["bytes"]).digest())
    return digest.digest()


def _write(rows: list[dict[str, Any]], out: Path, name: str, shard_rows: int) -> Path:
    """One file, or a folder of shards; what an earlier run left under this split's name is replaced."""
    import pyarrow.parquet as pq

    schema = infer_schema({} for _ in rows)
    shards = -(-len(rows) // shard_rows)
    single, folder = out / f"{name}.parquet", out / name
    single.unlink(missing_ok=True)
    for stale in folder.glob(f"{name}-*-of-*.parquet"):
        stale.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if shards == 1:
        targets = [single]
    else:
        folder.mkdir(exist_ok=True)
        targets = [folder / f"{name}-{i:05d}-of-{shards:05d}.parquet" for i in range(shards)]
    for i, target in enumerate(targets):
        table = rows_to_table(rows[i * shard_rows : (i + 1) * shard_rows], schema)
        partial = target.with_suffix(".partial")
        pq.write_table(table, partial)
        os.replace(partial, target)  # a reader never meets half a file
    return single if shards == 1 else folder
