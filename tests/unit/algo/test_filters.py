"""Each reason for which a group is not trained on."""

from __future__ import annotations

import numpy as np
import pytest

from rl.algo.filters import filter_reason, screen
from rl.algo.text_checks import find_defect, is_garbled, is_repeating
from rl.config.objective import FilterConfig, TextChecksConfig


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ((1.0, 0.0), None),
        ((0.5, 0.5, 0.6), None),
        ((1.0, None, 0.0), None),
        ((1.0, 1.0, 1.0), "all_right"),
        ((1.0, None, 1.0), "all_right"),
        ((0.0, 0.0), "all_wrong"),
        ((0.5, 0.5), "zero_variance"),
        ((0.1 + 0.2, 0.3), "zero_variance"),  # equal but for rounding
        ((1.0, None), "too_few_rewards"),
        ((None, None), "too_few_rewards"),
        ((), "too_few_rewards"),
    ],
)
def test_reason(rewards, reason):
    assert filter_reason(rewards, min_valid=2) == reason


def test_the_least_number_of_rewards_is_set_by_the_caller():
    assert filter_reason((1.0, 0.0, None), min_valid=3) == "too_few_rewards"
    assert filter_reason((1.0, 0.0, 0.0), min_valid=3) is None


@pytest.mark.parametrize(
    ("rewards", "outcomes", "reason", "by_outcome"),
    [
        # z-scores of a mixture: equal ones are all 0 or all 1 only by chance
        ((0.4, 0.4), (1.0, 1.0), "all_right", "all_right"),
        ((1.0, 1.0), (0.0, 0.0), "all_wrong", "all_wrong"),
        ((0.0, 0.0), (1.0, 1.0), "all_right", "all_right"),
        ((0.4, 0.4), (1.0, 0.0), "zero_variance", "zero_variance"),
        ((0.0, 0.0), (0.7, 0.7), "zero_variance", "zero_variance"),
        # right alike, rewarded differently: for length, say
        ((0.4, -0.4), (1.0, 1.0), None, "all_right"),
        ((0.4, -0.4), (0.0, 0.0), None, "all_wrong"),
        ((0.4, -0.4), (1.0, 0.0), None, None),
        # a failed grader's outcome says nothing, nor does a reward whose outcome has failed
        ((0.4, 0.4, None), (1.0, 1.0, None), "all_right", "all_right"),
        ((0.4, 0.4), (1.0, None), "all_right", "all_right"),
        ((0.4, 0.4), (None, None), "zero_variance", "zero_variance"),
    ],
)
def test_right_and_wrong_are_of_outcomes(rewards, outcomes, reason, by_outcome):
    assert filter_reason(rewards, 2, outcomes) == reason
    assert filter_reason(rewards, 2, outcomes, drop_equal_outcomes=True) == by_outcome


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({}, (None, "all_wrong")),
        ({"equal_rewards": "keep"}, (None, None)),
        ({"equal_outcomes": "drop"}, ("all_right", "all_wrong")),
        ({"equal_outcomes": "drop", "equal_rewards": "keep"}, ("all_right", "all_wrong")),
    ],
)
def test_groups_alike_in_outcome_or_in_reward(settings, reasons):
    def reason(rewards, outcomes):
        config = FilterConfig.model_validate(settings)
        return screen(rewards, (5, 5), ("stop", "stop"), (), config, 2, 100, outcomes).reason

    assert (reason((0.4, -0.4), (1.0, 1.0)), reason((0.4, 0.4), (0.0, 0.0))) == reasons


LOOP, WORDS = np.tile(np.arange(10), 60), np.arange(600)
CALM, LOST = np.full(600, -0.1), np.full(600, -9.0)


@pytest.mark.parametrize(
    ("filters", "ids", "logprobs", "defect"),
    [
        ({"repeating": "mask", "garbled": "mask"}, LOOP, LOST, "repeating"),
        ({"repeating": "off", "garbled": "count"}, LOOP, LOST, "garbled"),
        ({"repeating": "count"}, WORDS, LOST, None),
        ({"repeating": "mask", "garbled": "mask"}, WORDS, CALM, None),
        ({}, LOOP, LOST, None),
    ],
)
def test_the_first_defect_that_is_asked_for(filters, ids, logprobs, defect):
    assert find_defect("words", ids, logprobs, FilterConfig.model_validate(filters)) == defect


def test_long_and_hostile_texts_take_no_time_to_speak_of():
    """No limit is asserted; a quadratic check would run into the test's own."""
    generator = np.random.default_rng(0)
    for ids in (np.zeros(400_000, dtype=np.int32), generator.integers(0, 2, 400_000), np.arange(400_000)):
        is_repeating(ids, TextChecksConfig())
    assert not is_garbled("🙂\n" * 1_000_000, np.full(400_000, -0.5), TextChecksConfig())


@pytest.mark.parametrize("seed", range(5))
def test_random_texts_over_few_tokens_do_not_repeat(seed):
    """8-grams of 20 equally likely tokens hardly ever stand twice; those of 2 always do, in any order."""
    ids = np.random.default_rng(seed).integers(0, 20, 4000)
    assert not is_repeating(ids, TextChecksConfig())
