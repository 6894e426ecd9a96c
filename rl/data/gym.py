"""Rows of reasoning-gym datasets in the RL-172K layout; graded by the answer type `reasoning-gym`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.data.schema import infer_schema, rows_to_table
from rl.data.validate import MARKER
from rl.errors import DataError

ANY_ANSWER = "(any answer that the dataset's grader accepts)"
"""Stands in the `answer` column where the dataset names none; the grader does not read the column."""


def gym_rows(
    dataset: str, count: int, *, seed: int, config: Mapping[str, Any] | None = None, prompt_type: str = "think"
) -> Iterator[dict[str, Any]]:
    """`count` rows of a named dataset; the same arguments and library version give the same rows.

    Args:
        dataset: a name of `reasoning_gym.factory.DATASETS`, without `composite`: mix datasets by mixing rows.
        config: arguments of `reasoning_gym.create_dataset`; they are kept in each row, because graders may need them.
    Raises:
        DataError: unknown dataset, arguments that it does not take, an entry that can't be a row, library missing.
    """
    from rewards.gym_entry import COLUMN, GymEntry

    made = _create(dataset, count, seed, dict(config or {}))
    for index in range(count):
        entry = made[index]
        question, answer = entry["question"], entry["answer"]
        if MARKER in question:
            raise DataError(f"{dataset} entry {index} holds {MARKER}, which stands for an image in this layout")
        try:
            text = GymEntry(dataset, dict(config or {}), entry).dumps()
        except TypeError as exc:
            raise DataError(f"{dataset} entry {index}: {exc}") from exc
        yield {
            "id": f"{dataset}_{seed}_{index}",
            "problem": question,
            "answer": [answer if isinstance(answer, str) and answer.strip() else ANY_ANSWER],
            "images": [],
            "problem_type": "stem",
            "answer_type": "reasoning-gym",
            "source": f"reasoning-gym/{dataset}",
            "prompt_type": prompt_type,
            "format_guidance": None,
            "data_source": "reasoning-gym",
            "ability": made.category,
            COLUMN: text,
        }


def parse_counts(items: Sequence[str]) -> dict[str, int]:
    """`NAME=ROWS` texts as rows by dataset, in their order; `all=ROWS` stands for every dataset not named.

    Raises:
        DataError: a text of another form, a dataset named twice, or the library is missing.
    """
    counts: dict[str, int] = {}
    for item in items:
        name, sep, rows = item.partition("=")
        if not sep or not name or not rows.isdecimal() or int(rows) < 1:
            raise DataError(f"{item!r} is not of the form NAME=ROWS, such as leg_counting=100")
        if name in counts:
            raise DataError(f"the dataset {name!r} is given twice; name it once, with all its rows")
        counts[name] = int(rows)
    each = counts.pop("all", None)
    if each is not None:
        counts |= {name: each for name in sorted(_names() - counts.keys())}
    return counts


def write_gym(path: str | Path, counts: Mapping[str, int], *, seed: int) -> Path:
    """Write `counts` rows per dataset, each with its default config, as one parquet file.

    Raises:
        DataError: see `gym_rows`; no rows at all.
    """
    import pyarrow.parquet as pq

    rows = [row for dataset, count in counts.items() for row in gym_rows(dataset, count, seed=seed)]
    if not rows:
        raise DataError("no rows are asked for; give counts by dataset, such as {'leg_counting': 100}")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    pq.write_table(rows_to_table(rows, infer_schema(_extras(rows))), partial)
    os.replace(partial, target)  # a reader never meets half a file
    return target


def _extras(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    from rewards.gym_entry import COLUMN

    return [{COLUMN: row[COLUMN]} for row in rows]


def _names() -> set[str]:
    """Names of the datasets; a composite one is a mixture of others, and rows can be mixed as they are."""
    return set(_library()[1]) - {"composite"}


def _library() -> tuple[Any, Mapping[str, Any]]:
    """The module and its datasets by name."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as exc:
        raise DataError(f"reasoning-gym rows need {exc.name}; install the extra `reasoning-gym`") from exc
    return reasoning_gym, DATASETS


def _create(dataset: str, count: int, seed: int, config: dict[str, Any]) -> Any:
    from rewards.names import unknown_name

    if dataset not in _names():
        raise DataError(unknown_name("reasoning-gym dataset", dataset, _names()))
    if {"seed", "size"} & set(config):
        raise DataError(f"{dataset}: seed and size follow from the arguments; leave them out of config")
    try:
        return _library()[0].create_dataset(dataset, seed=seed, size=count, **config)
    except (TypeError, ValueError, AssertionError) as exc:
        raise DataError(f"{dataset} can't be made with {config}: {exc}") from exc
