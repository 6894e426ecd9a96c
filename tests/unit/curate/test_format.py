"""One reasoning format out of many, and the layouts of verl and TRL there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rl.config.base import parse_config
from rl.config.data import PromptConfig
from rl.config.formatting import FormatConfig, UnifyConfig
from rl.curate.format import run
from rl.curate.unify import Instructions, bare_answer, tagged_solution, unify
from rl.data.formats import read_samples, write_samples
from rl.data.prompts import user_text
from rl.errors import ConfigError, DataError
from rl.records import Sample

from .conftest import sample
from .test_clean import png

KNOWN = Instructions.of(UnifyConfig(), PromptConfig())
GEO3K = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. The "
    "reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}."
)


@pytest.mark.parametrize(
    ("problem", "left", "form"),
    [
        (f"<image>Find x {GEO3K}", "<image>Find x", "think"),
        ("2 + 2?\nPlease reason step by step, and put your final answer within \\boxed{}.", "2 + 2?", "think"),
        ('How many? Let\'s think step by step and output the final answer after "####".', "How many?", "think"),
        ("Which?\nA. 1\nB. 2\nAnswer with the option's letter from the given choices directly.", None, "normal"),
        ("What is it? Answer the question using a single word or phrase.", "What is it?", "normal"),
        ("Answer the question using a single word or phrase. What is it?", "What is it?", "normal"),
        ("Which? Put ONLY the final answer inside <answer></answer>, without any reasoning.", "Which?", "normal"),
        ("Explain step by step how to solve x = 2", "Explain step by step how to solve x = 2", None),
        ("Solve it and put your final answer in \\boxed{}.", "Solve it and put your final answer in \\boxed{}.", None),
        ("Please think step by step.", "Please think step by step.", None),  # nothing would be left
    ],
)
def test_instructions_come_off_the_ends_of_a_problem(problem: str, left: str | None, form: str | None) -> None:
    assert KNOWN.take_off(problem) == (left or "Which?\nA. 1\nB. 2", form)


def test_own_patterns_of_a_config() -> None:
    known = Instructions.of(UnifyConfig(normal_patterns=("respond tersely",)), PromptConfig())
    assert known.take_off("Which? Respond tersely.") == ("Which?", "normal")
    with pytest.raises(ConfigError, match="is no regular expression"):
        parse_config(UnifyConfig, {"think_patterns": ["("]})


@pytest.mark.parametrize(
    ("answer", "bare"),
    [
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("$\\boxed{4}$", "4"),
        ("<answer> B </answer>", "B"),
        ("x = \\boxed{4}", "x = \\boxed{4}"),
        ("\\boxed{}", "\\boxed{}"),
        ("plain", "plain"),
    ],
)
def test_gold_answers_stand_bare(answer: str, bare: str) -> None:
    assert bare_answer(answer) == bare


@pytest.mark.parametrize(
    ("solution", "thinks", "made", "changes"),
    [
        ("<think>7+5</think><answer>12</answer>", True, "<think>7+5</think><answer>12</answer>", []),
        ("<answer>12</answer>", False, "<answer>12</answer>", []),
        ("7+5 is 12\n#### 12", True, "<think>7+5 is 12</think><answer>12</answer>", ["solution_tagged"]),
        (
            "<think>7+5</think>\nSo \\boxed{12}.",
            True,
            "<think>7+5\nSo \\boxed{12}.</think><answer>12</answer>",
            ["solution_tagged"],
        ),
        ("<think>7+5</think> \\boxed{12}", True, "<think>7+5</think><answer>12</answer>", ["solution_tagged"]),
        (
            "Seven and five make it.",
            True,
            "<think>Seven and five make it.</think><answer>12</answer>",
            ["solution_tagged", "solution_took_gold"],
        ),
        (
            "so \\boxed{13}",
            True,
            "<think>so \\boxed{13}</think><answer>13</answer>",
            ["solution_tagged", "solution_disagrees"],
        ),
        ("7+5 = \\boxed{12}", False, "<answer>12</answer>", ["solution_tagged", "reasoning_dropped"]),
        ("\\boxed{12}", True, "<think></think><answer>12</answer>", ["solution_tagged", "without_reasoning"]),
        (
            "<think>never closed \\boxed{12}",
            True,
            "<think>never closed \\boxed{12}</think><answer>12</answer>",
            ["solution_tagged", "solution_took_gold"],
        ),
    ],
)
def test_solutions_in_tags(solution: str, thinks: bool, made: str, changes: list[str]) -> None:
    assert tagged_solution(solution, ("12",), thinks=thinks) == (made, changes)


def test_unifying_twice_changes_nothing_more() -> None:
    before = sample("a", problem=f"Find x. {GEO3K}", answers=("\\boxed{4}",), prompt_type="normal")
    before.extra["solution"] = "2 and 2 is \\boxed{4}"  # type: ignore[index]
    once, changes = unify(before, UnifyConfig(), KNOWN)
    assert (once.problem, once.prompt_type, once.answers) == ("Find x.", "think", ("4",))
    assert changes == ("instruction_removed", "form_changed", "answer_unwrapped", "solution_tagged")
    assert unify(once, UnifyConfig(), KNOWN) == (once, ())


def test_forms_by_problem_type_and_for_all() -> None:
    config = UnifyConfig(form="think", forms={"ocr": "normal"})
    types = [unify(sample("a", problem_type=kind), config, KNOWN)[0].prompt_type for kind in ("ocr", "stem")]
    assert types == ["normal", "think"]


def rich(name: str, **changes: Any) -> Sample:
    """A sample with something in every column."""
    extra = {
        "data_source": "web",
        "solution": "<think>a</think><answer>4</answer>",
        "options": ["1", "4"],
        "ability": None,
        "avg_reward": 0.25,
        "tokens": 17,
        "level": 3,
    }
    picture = png((5, 5, 30, 30))
    values = {"problem": '<image>What "is" <image>it?\n', "images": (picture, picture), "answers": ("4", "four")}
    return sample(name, **{**values, "format_guidance": "In words.", "extra": extra, **changes})


def settings(data: Path, out: Path, **changes: Any) -> FormatConfig:
    return parse_config(FormatConfig, {"data": str(data), "out": str(out), **changes})


@pytest.mark.parametrize("layout", ["verl", "trl"])
@pytest.mark.parametrize("instruct", [True, False])
def test_there_and_back_is_the_same(tmp_path: Path, layout: str, instruct: bool) -> None:
    samples = [rich("a"), rich("b", prompt_type="normal", answers=("4",)), sample("c", format_guidance=None)]
    write_samples(samples, tmp_path / "ours.parquet")
    there = settings(tmp_path / "ours.parquet", tmp_path / "there", write_as=layout, unify=None, instruct=instruct)
    back = settings(run(there), tmp_path / "back", read_as=layout, unify=None, shard_rows=2)
    folder = run(back)
    assert [file.name for file in sorted(folder.iterdir())] == [
        "data-00000-of-00002.parquet",
        "data-00001-of-00002.parquet",
    ]
    assert read_samples(folder) == read_samples(tmp_path / "ours.parquet")
    report = json.loads((tmp_path / "there" / "format.json").read_text())
    losses = {row["name"]: row["rows"] for row in report["losses"]}
    assert losses == ({"other_answers": 1} if layout == "verl" else {})
    assert report["forms"] == {"think": 2, "normal": 1} and report["changes"] == []
    assert json.loads((tmp_path / "back" / "format.json").read_text())["losses"] == []
    record = json.loads((tmp_path / "back" / "format.manifest.json").read_text())
    assert record["counts"] == {"rows_out": 3, "rows_skipped": 0} and set(record["outputs"]) == {"data", "format.json"}


def test_verl_rows_are_what_verl_reads(tmp_path: Path) -> None:
    """Messages of role and text, one marker per image, a gold of text, an index and a split."""
    import datasets

    write_samples([rich("a"), sample("b", answers=("7",))], tmp_path / "ours.parquet")
    folder = run(settings(tmp_path / "ours.parquet", tmp_path / "verl", write_as="verl"))
    table = datasets.load_dataset("parquet", data_files=str(folder / "*.parquet"), cache_dir=str(tmp_path / "c"))[
        "train"
    ]
    first, second = table
    assert first["images"][0].size == (96, 96) and second["images"] == []
    (message,) = first["prompt"]
    assert message["role"] == "user" and message["content"].count("<image>") == 2
    assert message["content"] == user_text(rich("a"), PromptConfig(), "<image>")
    assert message["content"].endswith(PromptConfig().think)
    assert first["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert second["reward_model"]["ground_truth"] == "7"
    assert [row["extra_info"]["index"] for row in table] == [0, 1]
    assert (
        first["extra_info"]["split"] == "train" and first["data_source"] == "web" and second["data_source"] == "chart"
    )
    assert first["ability"] == "ocr"


def test_trl_rows_are_what_trl_reads(tmp_path: Path) -> None:
    """A conversational prompt with image parts, and the gold as text in `solution`."""
    write_samples([rich("a")], tmp_path / "ours.parquet")
    folder = run(settings(tmp_path / "ours.parquet", tmp_path / "trl", write_as="trl", instruct=False))
    (row,) = pq.read_table(folder).to_pylist()
    parts = row["prompt"][0]["content"]
    assert [part["type"] for part in parts] == ["image", "text", "image", "text"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ['What "is" ', "it?\n"]
    assert (row["solution"], row["answer"], row["level"]) == ("4", ["4", "four"], 3)
    assert row["worked_solution"] == "<think>a</think><answer>4</answer>"


def test_foreign_rows_come_in_with_their_losses_counted(tmp_path: Path) -> None:
    """Geometry3k as verl's own script writes it, and a row with what has no place here."""
    picture = png((5, 5, 30, 30))
    (tmp_path / "p.png").write_bytes(picture)
    rows = [
        {
            "data_source": "hiyouga/geometry3k",
            "prompt": [{"role": "user", "content": f"<image>Find x. {GEO3K}"}],
            "images": [{"bytes": None, "path": "p.png"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "3"},
            "extra_info": {"split": "train", "index": 7, "answer": "3", "question": "<image>Find x."},
        },
        {
            "data_source": "hiyouga/geometry3k",
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
            "images": [],
            "videos": [{"video": "v.mp4"}],
            "agent_name": "tool_agent",
            "reward_model": {"style": "model", "ground_truth": "\\boxed{4}"},
        },
    ]
    (tmp_path / "verl.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_samples(run(settings(tmp_path / "verl.jsonl", tmp_path / "out", read_as="verl")))
    assert (first.problem, first.prompt_type, first.images) == ("<image>Find x.", "think", (picture,))
    assert first.extra["extra_info"]["index"] == 7 and first.extra["ability"] == "math"
    assert (second.problem, second.answers) == ("2 + 2?", ("4",)) and second.extra["agent_name"] == "tool_agent"
    report = json.loads((tmp_path / "out" / "format.json").read_text())
    assert {row["name"]: row["rows"] for row in report["losses"]} == {"system_message": 1, "video": 1, "grader": 1}
    changes = {row["name"]: row for row in report["changes"]}
    assert {name: row["rows"] for name, row in changes.items()} == {"instruction_removed": 1, "answer_unwrapped": 1}
    assert changes["instruction_removed"]["examples"][0]["after"] == "<image>Find x."


def test_trl_images_without_a_place_stand_first(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(png((5, 5, 30, 30)))
    row = {"prompt": [{"role": "user", "content": "How many?"}], "image": "p.png", "solution": "7"}
    (tmp_path / "trl.jsonl").write_text(json.dumps(row) + "\n")
    (made,) = read_samples(run(settings(tmp_path / "trl.jsonl", tmp_path / "out", read_as="trl")))
    assert made.problem == "<image>How many?" and made.answers == ("7",)


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "reward_model": None}, {"prompt": "2 + 2?", "reward_model": {"ground_truth": "4"}}]
    data = tmp_path / "verl.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="row 0: missing columns: reward_model"):
        run(settings(data, tmp_path / "strict", read_as="verl"))
    assert not list((tmp_path / "strict").glob("*manifest*")) and not list((tmp_path / "strict" / "data").glob("*"))
    run(settings(data, tmp_path / "lax", read_as="verl", on_bad_row="skip"))
    report = json.loads((tmp_path / "lax" / "format.json").read_text())
    assert (report["rows_out"], report["rows_skipped"]) == (1, 1)
    data.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="no usable row; the first of 1"):
        run(settings(data, tmp_path / "none", read_as="verl", on_bad_row="skip"))


def test_columns_that_trl_uses_are_refused(tmp_path: Path) -> None:
    write_samples([sample("a", extra={"prompt": "x"})], tmp_path / "ours.parquet")
    with pytest.raises(DataError, match="columns prompt can't be carried into TRL rows"):
        run(settings(tmp_path / "ours.parquet", tmp_path / "trl", write_as="trl"))


def test_instruct_has_no_part_in_our_own_layout() -> None:
    with pytest.raises(ConfigError, match="instruct has no part"):
        parse_config(FormatConfig, {"data": "d", "out": "o", "instruct": False})
