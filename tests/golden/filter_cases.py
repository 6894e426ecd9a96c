"""Groups and texts with the verdict of each filter, stated by hand."""

from __future__ import annotations

from typing import Any

Case = dict[str, Any]


def group(
    name: str,
    why: str,
    config: Case,
    rewards: list[float | None],
    expected: tuple[list[float | None], str | None, Case],
    lengths: list[int] | None = None,
    finish: list[str] | None = None,
    defects: list[str | None] | None = None,
    min_valid: int = 2,
    max_tokens: int = 100,
) -> Case:
    trained, reason, counts = expected
    return {
        "name": name,
        "derivation": [why],
        "config": config,
        "inputs": {
            "rewards": rewards,
            "lengths": lengths or [10] * len(rewards),
            "finish_reasons": finish or ["stop"] * len(rewards),
            "defects": defects or [],
            "min_valid": min_valid,
            "max_tokens": max_tokens,
        },
        "expected": {"rewards": trained, "reason": reason, "completions": counts},
    }


CUT = ["stop", "length", "stop", "length"]
MASK = {"truncated": "mask", "garbled": "mask", "repeating": "mask"}
LONG = {"overlong": {"buffer": 20, "penalty": 1.0}}
MIXED: list[float | None] = [1.0, 0.0, 0.0, 0.0]
FILTERS = [
    group("trained", "Rewards differ.", {}, MIXED, (MIXED, None, {})),
    group("all_right", "All 1.", {}, [1.0, 1.0], ([1.0, 1.0], "all_right", {})),
    group("all_wrong", "All 0.", {}, [0.0, None, 0.0], ([0.0, None, 0.0], "all_wrong", {})),
    group("zero_variance", "Equal in between.", {}, [0.5, 0.5], ([0.5, 0.5], "zero_variance", {})),
    group("kept", "Equal rewards may be kept.", {"equal_rewards": "keep"}, [1.0, 1.0], ([1.0, 1.0], None, {})),
    group("too_few_rewards", "Graders failed.", {}, [1.0, None, None], ([1.0, None, None], "too_few_rewards", {})),
    group(
        "three_are_wanted",
        "Two of three have a reward.",
        {},
        [1.0, 0.0, None],
        ([1.0, 0.0, None], "too_few_rewards", {}),
        min_valid=3,
    ),
    group("truncated_off", "Truncation is no matter by default.", {}, MIXED, (MIXED, None, {}), finish=CUT),
    group(
        "truncated_counted",
        "Counted, and trained on.",
        {"truncated": "count"},
        MIXED,
        (MIXED, None, {"truncated": 2}),
        finish=CUT,
    ),
    group(
        "truncated_masked",
        "The two that were cut off have no part in the group.",
        {"truncated": "mask"},
        MIXED,
        ([1.0, None, 0.0, None], None, {"truncated": 2}),
        finish=CUT,
    ),
    group(
        "truncated_leaves_equal",
        "What is left is all right.",
        {"truncated": "mask"},
        [1.0, 0.0, 1.0, 0.0],
        ([1.0, None, 1.0, None], "all_right", {"truncated": 2}),
        finish=CUT,
    ),
    group(
        "truncated_leaves_too_few",
        "One reward is left: a filter's doing, not the graders'.",
        {"truncated": "mask"},
        [1.0, 0.0, 0.0],
        ([1.0, None, None], "truncated", {"truncated": 2}),
        finish=["stop", "length", "length"],
    ),
    group(
        "failed_before_masked",
        "The graders failed first: that is the reason.",
        {"truncated": "mask"},
        [1.0, None, None],
        ([1.0, None, None], "too_few_rewards", {"truncated": 2}),
        finish=["stop", "length", "length"],
    ),
    group(
        "one_reason_each",
        "What repeats and is cut off counts as repeating.",
        MASK,
        [1.0, 0.0, 0.5, 0.0],
        ([1.0, None, None, None], "repeating", {"repeating": 2, "garbled": 1}),
        finish=CUT,
        defects=[None, "repeating", "garbled", "repeating"],
    ),
    group(
        "defect_off_truncated_on",
        "A defect whose filter is off leaves the next reason.",
        {"truncated": "count"},
        MIXED,
        (MIXED, None, {"truncated": 2}),
        finish=CUT,
        defects=[None, "repeating", None, None],
    ),
    group(
        "garbled_counted",
        "Counted, and trained on.",
        {"garbled": "count"},
        [1.0, 0.0],
        ([1.0, 0.0], None, {"garbled": 1}),
        defects=["garbled", None],
    ),
    group(
        "overlong",
        "Lengths 80, 90 and 100 of 100 with a buffer of 20: 0, -0.5 and -1.",
        LONG,
        [1.0, 1.0, 0.0],
        ([1.0, 0.5, -1.0], None, {"overlong": 2}),
        lengths=[80, 90, 100],
    ),
    group(
        "overlong_and_all_wrong",
        "Length alone makes no group worth training on.",
        LONG,
        [0.0, 0.0],
        ([0.0, -0.5], "all_wrong", {"overlong": 1}),
        lengths=[80, 90],
    ),
    group(
        "overlong_and_masked",
        "A masked completion has no reward to lower; its length still counts.",
        {**LONG, "truncated": "mask"},
        [1.0, 0.0, 0.0],
        ([0.5, 0.0, None], None, {"overlong": 2, "truncated": 1}),
        lengths=[90, 10, 100],
        finish=["stop", "stop", "length"],
    ),
]


def tokens(name: str, why: str, parts: list[Case], repeating: bool, **config: Any) -> Case:
    """`parts`: `range` [a, b) or `ids`, each `times` in a row (1 if not given)."""
    return {
        "name": name,
        "check": "repeating",
        "derivation": [why],
        "config": config,
        "tokens": parts,
        "expected": repeating,
    }


def text(name: str, why: str, content: str, logprobs: list[Case], garbled: bool, **config: Any) -> Case:
    """`logprobs`: `value`, `times` in a row."""
    return {
        "name": name,
        "check": "garbled",
        "derivation": [why],
        "config": config,
        "text": content,
        "logprobs": logprobs,
        "expected": garbled,
    }


CALM = [{"value": -0.5, "times": 100}]
COUNTING = [{"ids": [1000 + round_, *range(59)]} for round_ in range(12)]
TEXT = [
    tokens(
        "ten_tokens_sixty_times",
        "593 8-grams; all but the first 10 stood 10 before: runs of 256 are full.",
        [{"range": [0, 10], "times": 60}],
        True,
    ),
    tokens("one_token", "Distance 1.", [{"ids": [7], "times": 300}], True),
    tokens("no_repetition", "1,000 different tokens.", [{"range": [0, 1000]}], False),
    tokens(
        "a_question_copied_once",
        "The 8-grams of the copy stood 300 before: too far for runs of 256 (up to 51) and "
        "320 (64), and 640 (128) is more than there is.",
        [{"range": [0, 300], "times": 2}],
        False,
    ),
    tokens("too_short", "200 tokens are fewer than repeat_tokens.", [{"range": [0, 10], "times": 20}], False),
    tokens("too_short_by_default", "But enough for 100.", [{"range": [0, 10], "times": 20}], True, repeat_tokens=100),
    tokens(
        "seven_paragraphs",
        "Passages of 64 need a run of 5 * 64 = 320; 541 - 164 = 377 8-grams stood 64 before.",
        [{"range": [0, 100]}, {"range": [200, 264], "times": 7}],
        True,
    ),
    tokens(
        "four_paragraphs", "349 - 164 = 185 of 320.", [{"range": [0, 100]}, {"range": [200, 264], "times": 4}], False
    ),
    tokens(
        "after_a_good_start",
        "What comes before and after does not matter.",
        [{"range": [0, 500]}, {"ids": [3, 4, 5], "times": 120}, {"range": [600, 900]}],
        True,
    ),
    tokens(
        "a_counting_loop", "One token in 60 changes and takes 8 8-grams with it: at best 280 of 320.", COUNTING, False
    ),
    tokens("a_counting_loop_at_85", "87.5 % is enough for a share of 0.85.", COUNTING, True, repeat_share=0.85),
    tokens("empty", "Nothing.", [], False),
    text("plain", "Letters.", "The answer is 42.\n\tDone", CALM, False),
    text(
        "other_scripts", "Letters of any script, symbols and emoji mean something.", "答案是 42 μm² → ½ 🙂", CALM, False
    ),
    text("replacement_at_the_bound", "5 of 100 are not more than 5 %.", "a" * 94 + "\ufffd" * 5 + "b", CALM, False),
    text("replacement_above", "6 of 100.", "a" * 93 + "\ufffd" * 6 + "b", CALM, True),
    text(
        "cut_inside_a_character", "Replacement characters at the very end are a cut.", "four\ufffd\ufffd", CALM, False
    ),
    text("control_characters", "2 of 10.", "ab\u0000c\u0001defgh", CALM, True),
    text(
        "private_and_unassigned", "U+E000 is private, U+0378 unassigned: 2 of 10.", "ab\ue000c\u0378defgh", CALM, True
    ),
    text("white_space", "Tabs and new lines are white space, not control.", "\t\n\r\n\t\n", CALM, False),
    text("empty", "Nothing.", "", [], False),
    text(
        "surprised",
        "64 tokens in a row at -9 nats: mean 9 > 8.",
        "words",
        [{"value": -0.1, "times": 50}, {"value": -9.0, "times": 64}, {"value": -0.1, "times": 50}],
        True,
    ),
    text(
        "surprised_too_shortly",
        "40 at -12 and 24 at -0.1: mean 7.54.",
        "words",
        [{"value": -0.1, "times": 50}, {"value": -12.0, "times": 40}, {"value": -0.1, "times": 50}],
        False,
    ),
    text("fewer_than_a_window", "10 tokens are no window of 64.", "words", [{"value": -20.0, "times": 10}], False),
    text(
        "a_smaller_window",
        "10 tokens at -20 are a window of 10.",
        "words",
        [{"value": -20.0, "times": 10}],
        True,
        surprise_window=10,
    ),
]
