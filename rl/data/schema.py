"""The RL-172K layout: its columns, the names that may stand in them, and rows as an arrow table.

The tables carry the Hugging Face `datasets` feature metadata, so that `load_dataset("parquet")` shows images.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rl.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

PROBLEM_TYPES = (
    "stem",
    "ocr",
    "general",
    "counting",
    "grounding",
    "spatial-reasoning",
    "coding",
    "embodied",
    "science",
)

REQUIRED_COLUMNS = ("id", "problem", "answer", "problem_type", "answer_type", "source")
"""A row without one of these can't be used; the others have defaults."""

CORE_COLUMNS = (
    "id",
    "problem",
    "answer",
    "images",
    "problem_type",
    "answer_type",
    "source",
    "prompt_type",
    "format_guidance",
)

EXTRA_COLUMNS = ("data_source", "solution", "options", "ability", "avg_reward", "tokens")
"""Nullable columns of the layout that are carried through untouched."""


def core_type(column: str) -> pa.DataType:
    """Arrow type of a column of the layout."""
    import pyarrow as pa

    if column == "images":
        return pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    if column in ("answer", "options"):
        return pa.list_(pa.string())
    if column == "avg_reward":
        return pa.float64()
    if column == "tokens":
        return pa.int64()
    return pa.string()


def infer_schema(extras: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """The layout's schema for rows with these carried-through columns; types follow the values where there are any.

    Raises:
        DataError: a carried-through column holds values of different types.
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in EXTRA_COLUMNS}
    for extra in extras:
        for name, value in extra.items():
            columns.setdefault(name, []).append(value)
    fields = [(name, core_type(name)) for name in CORE_COLUMNS]
    for name, values in columns.items():
        try:
            inferred = pa.array(values).type
        except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
            raise DataError(f"column {name!r} can't be written: its values are of different types ({exc})") from exc
        empty = pa.types.is_null(inferred) or (pa.types.is_list(inferred) and pa.types.is_null(inferred.value_type))
        fields.append((name, core_type(name) if empty else inferred))
    return with_feature_metadata(pa.schema(fields))


def with_feature_metadata(schema: pa.Schema) -> pa.Schema:
    """The schema with the metadata from which `datasets` takes its features, `images` as a list of Image."""
    import datasets

    features = datasets.Features.from_arrow_schema(schema.remove_metadata()).to_dict()
    features["images"] = {"feature": {"_type": "Image"}, "_type": "List"}
    info = {"info": {"features": {name: _readable_by_all(feature) for name, feature in features.items()}}}
    return schema.with_metadata({"huggingface": json.dumps(info)})


def rows_to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of the layout as a table; a column that a row lacks is null."""
    import pyarrow as pa

    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def _readable_by_all(feature: Any) -> Any:
    """`datasets` before 4.0 knows lists of plain features only as `Sequence`, later versions read both."""
    if isinstance(feature, dict) and feature.get("_type") == "List" and "_type" in feature["feature"]:
        return {**feature, "feature": _readable_by_all(feature["feature"]), "_type": "Sequence"}
    return feature
