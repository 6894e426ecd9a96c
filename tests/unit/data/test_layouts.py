"""The layouts of verl, TRL and ViRL39K: rows as those projects write them, and round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rl.data.formats import convert, iter_samples, read_samples, write_samples
from rl.data.layouts import unbox
from rl.data.validate import BadRow, RowError
from rl.errors import DataError
from rl.records import Sample


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_verl_row(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    row: dict[str, Any] = {
        "data_source": "hiyouga/geometry3k",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Find x."}],
        "images": [{"bytes": None, "path": "a.png"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 0},
    }
    (sample,) = iter_samples(write_lines(tmp_path / "a.jsonl", [row]), layout="verl")
    assert sample == Sample(
        id="hiyouga/geometry3k_0",
        problem="<image>Find x.",
        answers=("3",),
        images=(png,),
        problem_type="general",
        answer_type="any",
        source="hiyouga/geometry3k",
        extra={"data_source": "hiyouga/geometry3k", "ability": "math", "extra_info": row["extra_info"]},
    )


def test_a_trl_row_with_image_parts(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    content = [{"type": "image"}, {"type": "text", "text": "How many?"}]
    row: dict[str, Any] = {
        "prompt": [{"role": "user", "content": content}],
        "image": "a.png",
        "solution": "7",
        "level": 3,
    }
    (sample,) = iter_samples(write_lines(tmp_path / "a.jsonl", [row]), layout="trl")
    assert (sample.id, sample.problem, sample.answers, sample.images) == ("trl_0", "<image>How many?", ("7",), (png,))
    assert sample.extra == {"solution": "7", "level": 3}


def test_rows_without_ids_are_told_apart_across_shards(tmp_path: Path) -> None:
    for shard in range(2):
        write_lines(tmp_path / f"train-{shard:05d}-of-00002.jsonl", [{"prompt": "?", "solution": "7"}])
    assert [sample.id for sample in iter_samples(tmp_path, layout="trl")] == ["trl_0_0", "trl_1_0"]


def test_virl39k_rows(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "q.png").write_bytes(png)
    rows: list[dict[str, Any]] = [
        {
            "qid": "MM_1",
            "question": "<image>\nWhich?\nA. 1\nB. 2",
            "answer": "\\boxed{B}",
            "image": ["images/q.png"],
            "category": "(GradeSchool) Geometric",
            "source": "MM",
            "PassRate_32BTrained": 0.5,
        },
        {"qid": "MM_2", "question": "Half of one?", "answer": "\\boxed{\\frac{1}{2}}", "image": [], "source": "MM"},
    ]
    first, second = iter_samples(write_lines(tmp_path / "a.jsonl", rows), layout="virl39k")
    assert (first.id, first.answers, first.answer_type) == ("MM_1", ("B",), "multiple-choice")
    assert first.images == (png,) and first.extra["PassRate_32BTrained"] == 0.5
    assert (second.answers, second.answer_type) == (("\\frac{1}{2}",), "math-expressions")


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("\\boxed{4}", "4"),
        ("so \\boxed{1} and then \\boxed{ {a}_{b} }.", "{a}_{b}"),
        (" plain ", "plain"),
    ],
)
def test_unbox(text: str, inner: str) -> None:
    assert unbox(text) == inner


def test_unbox_refuses_an_open_box() -> None:
    with pytest.raises(RowError, match="never closes"):
        unbox("\\boxed{\\frac{1}{2}")


@pytest.mark.parametrize("layout", ["verl", "trl"])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_round_trips_keep_what_training_needs(tmp_path: Path, png: bytes, layout: Any, suffix: str) -> None:
    samples = [
        Sample("a", "<image>x <image>y", ("1", "2"), (png, png), "ocr", "ocrtext", "s", "normal", "In words."),
        Sample("b", "text only", ("C",), (), "stem", "multiple-choice", "t"),
    ]
    write_samples(samples, tmp_path / "ours.parquet")
    there, back = tmp_path / f"theirs{suffix}", tmp_path / "back.parquet"
    assert convert(tmp_path / "ours.parquet", there, write_as=layout) == 2
    assert convert(there, back, read_as=layout) == 2
    for before, after in zip(samples, read_samples(back), strict=True):
        for name in ("id", "problem", "answers", "images", "problem_type", "answer_type", "source", "prompt_type"):
            assert getattr(after, name) == getattr(before, name), name
        assert after.format_guidance == before.format_guidance


def test_rows_that_do_not_fit_their_layout(tmp_path: Path) -> None:
    several = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows: list[dict[str, Any]] = [
        {"prompt": several, "reward_model": {"ground_truth": "1"}},
        {"prompt": "?", "reward_model": None},
        {"prompt": "?", "reward_model": {"style": "model"}},
    ]
    verl = write_lines(tmp_path / "verl.jsonl", rows)
    report: list[BadRow] = []
    assert list(iter_samples(verl, on_bad="skip", report=report, layout="verl")) == []
    assert [bad.row for bad in report] == [0, 1, 2]
    assert "one user message, got roles: user, assistant" in report[0].reason
    assert "reward_model must be a mapping" in report[1].reason
    assert "missing columns: answer" in report[2].reason


def test_unknown_layouts_list_the_known_ones(tmp_path: Path, png: bytes) -> None:
    write_samples([Sample("b", "q", ("C",), (), "stem", "multiple-choice", "t")], tmp_path / "a.parquet")
    with pytest.raises(DataError, match="can't write layout 'virl39k'; known: rl172k, jsonl, verl, trl"):
        convert(tmp_path / "a.parquet", tmp_path / "b.parquet", write_as="virl39k")
    with pytest.raises(DataError, match="unknown layout 'vrl'; known: rl172k, jsonl, verl, trl, virl39k"):
        convert(tmp_path / "a.parquet", tmp_path / "b.parquet", read_as="vrl")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"give it the suffix \.jsonl"):
        convert(tmp_path / "a.parquet", tmp_path / "b.parquet", write_as="jsonl")
