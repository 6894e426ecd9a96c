"""The final answer: what counts, what does not, and that hostile text costs linear time."""

from __future__ import annotations

import time

import pytest

from rewards.extract import boxed, final_answer, is_well_formed, with_opened_reasoning


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>a</think><answer>5</answer>", "5"),
        ("<answer> 5 </answer>", "5"),
        ("reasoning</think>\n<answer>5</answer>", "5"),
        (r"<think>a</think>So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{a \boxed{b}}", r"a \boxed{b}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{never closed \boxed{b}", "b"),
        (r"<answer>5</answer> that is \boxed{5}", "5"),
        (r"<answer>$5$</answer><answer>5</answer>", "5"),
        ("<answer>in <answer>5</answer>", "5"),
        ("<ANSWER>5</ANSWER>", "5"),
        ("<answer>5</answer> <answer>", "5"),
    ],
)
def test_found(completion: str, expected: str) -> None:
    assert final_answer(completion) == expected


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "5",
        "<answer>5",
        "5</answer>",
        "<answer></answer>",
        r"\boxed{5",
        r"\boxed{\frac{1}{2}",
        "<think><answer>5</answer></think>",
        r"<think>so \boxed{5}</think> I am done.",
        "<think><answer>5</answer>",
        r"<think>never closed \boxed{5}",
        "<think>a</think><think><answer>5</answer>",
        "<Think><answer>5</answer>",
        "<answer>5</answer></think>",
        "<answer>5</answer><answer>6</answer>",
        r"\boxed{5} or \boxed{6}",
        r"<answer>5</answer> or \boxed{6}",
        r"<answer>\boxed{5} cut off",
    ],
)
def test_no_answer(completion: str) -> None:
    assert final_answer(completion) is None


def test_boxes_in_order() -> None:
    assert boxed(r"\boxed{a} } { \boxed {b{c}} \boxed{") == ["a", "b{c}"]


@pytest.mark.parametrize(
    "pattern",
    ["<answer>", r"\boxed{", "{", "}", "<think>", "</think>", "<answer>x</answer>", "\\", "\\boxed ", "<", "\\boxed{}"],
)
def test_hostile_text_of_a_megabyte_takes_linear_time(pattern: str) -> None:
    start = time.perf_counter()
    final_answer(pattern * (2**20 // len(pattern)))
    assert time.perf_counter() - start < 2.0  # 0.2 s here; quadratic would be hours


@pytest.mark.parametrize(
    ("completion", "thinks", "expected"),
    [
        ("<think>a</think>\n<answer>5</answer>\n", True, True),
        ("a</think><answer>5</answer>", True, True),
        ("<answer>5</answer>", True, False),
        ("<answer>5</answer>", False, True),
        ("<think>a</think><answer>5</answer>", False, False),
        ("<answer>5</answer><think>a</think>", True, False),
        ("<think>a</think>so<answer>5</answer>", True, False),
        ("<think>a</think><answer>5</answer>!", True, False),
        ("<think>a</think><answer>5</answer><answer>5</answer>", True, False),
        ("<think>a<think>b</think><answer>5</answer>", True, False),
        ("x<think>a</think><answer>5</answer>", True, False),
        ("<think><answer>5</answer></think>", True, False),
    ],
)
def test_form(completion: str, thinks: bool, expected: bool) -> None:
    assert is_well_formed(completion, thinks=thinks) is expected


def test_reasoning_that_the_prompt_opened() -> None:
    for prompt in ("2 + 2?\n<think>", "<think>\n"):
        assert with_opened_reasoning("4", prompt) == "<think>4"
    for prompt in (None, "", "<think></think> 2 + 2?"):
        assert with_opened_reasoning("4", prompt) == "4"
