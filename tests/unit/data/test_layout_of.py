"""Which layout a file is of, told from its columns."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl.data.formats import read_samples
from rl.data.layouts import layout_of
from rl.errors import DataError


@pytest.mark.parametrize(
    ("columns", "layout"),
    [
        (("data_source", "prompt", "reward_model", "extra_info"), "verl"),
        (("prompt", "solution"), "trl"),
        (("prompt", "image", "answer"), "trl"),
        (("question", "answer", "qid", "PassRate_32BTrained"), "virl39k"),
        (("prompt", "problem", "answer"), None),
        (("problem",), None),
        (("prompt",), None),
        ((), None),
    ],
)
def test_columns_tell_the_layout(columns, layout):
    assert layout_of(columns) == layout


def test_a_parquet_file_of_another_layout_says_how_to_translate_it(tmp_path):
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"prompt": ["p"], "reward_model": [{"ground_truth": "4"}]}), path)
    with pytest.raises(DataError, match="columns of the verl layout") as caught:
        read_samples(path)
    assert str(caught.value).endswith("--from verl`")
