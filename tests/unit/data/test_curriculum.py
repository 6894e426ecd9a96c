"""Curricula, worked by hand: which pool, which prompt, who retires and rests, and what a checkpoint keeps."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from rl.config.base import parse_config
from rl.config.curriculum import GaussianConfig, PoolsConfig
from rl.data.curriculum import Curriculum, PoolCurriculum, Profiled
from rl.data.draws import MOST_CREDIT, Shares, truncated_normal, uniform
from rl.data.gaussian import GaussianCurriculum
from rl.data.store import OrderedPrompts
from rl.errors import CheckpointError, ConfigError, DataError


def profile(right: list[int], of: int = 8, domains: dict[str, tuple[float, list[int]]] | None = None) -> Profiled:
    """Prompts s0, s1, ... with so many right attempts; `domains` gives name -> (share, rows)."""
    count = len(right)
    domain = np.zeros(count, dtype=np.int64) if domains is None else np.full(count, -1)
    for number, (_, rows) in enumerate((domains or {}).values()):
        domain[rows] = number
    names = ("all",) if domains is None else tuple(domains)
    shares = (1.0,) if domains is None else tuple(share for share, _ in domains.values())
    ids = tuple(f"s{i}" for i in range(count))
    return Profiled(ids, np.array(right, float), np.full(count, float(of)), domain, names, shares)


def pools(right: list[int], steps: int = 5, **changes: Any) -> PoolCurriculum:
    config = parse_config(PoolsConfig, {"attempts": ["a"], **changes})
    return PoolCurriculum(config, profile(right), seed=3, steps=steps)


def group(name: str, right: int, of: int = 4) -> tuple[str, tuple[float, ...]]:
    return name, (1.0,) * right + (0.0,) * (of - right)


def see(curriculum: Curriculum, *groups: tuple[str, tuple[float, ...]], fate: str = "trained") -> None:
    for uid, (name, rewards) in enumerate(groups):
        curriculum.observe(name, rewards, fate, uid)


def test_shares_hold_at_every_draw() -> None:
    shares, everyone = Shares(3), np.ones(3, dtype=bool)
    # credits after each share is added: (.5 .25 .25) -> 0; (0 .5 .5) -> 1, the first of equals; (.5 -.25 .75) -> 2;
    # (1 0 0) -> 0, after which all are 0 and it begins again.
    drawn = [shares.choose(np.array([0.5, 0.25, 0.25]), everyone) for _ in range(8)]
    assert drawn == [0, 1, 2, 0, 0, 1, 2, 0]


def test_shares_of_what_is_not_there_go_to_the_others() -> None:
    shares = Shares(3)
    drawn = [shares.choose(np.array([0.5, 0.25, 0.25]), np.array([False, True, True])) for _ in range(4)]
    assert drawn == [1, 2, 1, 2]
    only = Shares(2)
    assert [only.choose(np.array([1.0, 0.0]), np.array([False, True])) for _ in range(2)] == [1, 1]
    for _ in range(100):
        only.give_back(0)
    assert only.credit[0] == MOST_CREDIT


def test_prompts_fall_into_pools_by_pass_rate() -> None:
    made = pools([0, 2, 3, 5, 6, 8], easy_from=0.75, hard_to=0.25, retire_after=9, rest_after=9)
    # rates 0, .25 | .375, .625 | .75, 1
    assert [rows.tolist() for rows in made._pools] == [[4, 5], [2, 3], [0, 1]]
    assert made.advance(1) == {
        "curriculum/easy": 2.0,
        "curriculum/medium": 2.0,
        "curriculum/hard": 2.0,
        "curriculum/retired": 0.0,
        "curriculum/resting": 0.0,
        "curriculum/woken": 0.0,
    }


def test_shares_change_over_the_run() -> None:
    points = [
        {"at": 0, "easy": 1, "medium": 0, "hard": 0},
        {"at": 0.5, "easy": 0, "medium": 1, "hard": 0},
        {"at": 1, "easy": 0, "medium": 0, "hard": 1},
    ]
    made = pools([1, 4, 7], steps=5, shares=points)  # steps 0 to 4: progress 0, .25, .5, .75, 1
    seen = []
    for step in range(1, 6):
        seen.append(made.wanted().tolist())
        made.advance(step)
    assert seen == [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert made.wanted().tolist() == [0, 0, 1]  # a resumed run may be given more steps


def test_a_pool_is_gone_through_before_a_prompt_comes_again() -> None:
    made = pools([4] * 5)
    first, second = ([next(made).sample_id for _ in range(5)] for _ in range(2))
    assert sorted(first) == sorted(second) == [f"s{i}" for i in range(5)]
    assert first != second
    other = PoolCurriculum(made.config, made.prompts, seed=4, steps=5)
    assert [next(other).sample_id for _ in range(5)] != first
    assert [next(pools([4] * 5)).sample_id] == first[:1]


def test_new_groups_move_a_prompt_with_half_the_memory() -> None:
    made = pools([4], easy_from=0.7, hard_to=0.3)
    see(made, group("s0", 4))
    row = made.advance(1)
    # 4 of 8 halved is 2 of 4; with 4 of 4 it is 6 of 8
    assert made.rates().tolist() == [0.75]
    assert (row["curriculum/rate_asked"], row["curriculum/rate_got"]) == (0.5, 1.0)
    assert row["curriculum/easy"] == 1.0
    see(made, group("s0", 0))
    made.advance(2)
    assert made.rates().tolist() == [3 / 8]  # 3 of 4 and 0 of 4


def test_failed_graders_are_no_attempts() -> None:
    made = pools([4])
    made.observe("s0", (1.0, None, None), "trained", 0)
    made.observe("s0", (), "failed", 1)
    assert made.advance(1)["curriculum/rate_got"] == 1.0
    assert made.rates().tolist() == [3 / 5]  # 2 of 4 and 1 of 1


def test_solved_prompts_retire() -> None:
    made = pools([8, 4], retire_after=2)
    assert made.advance(1)["curriculum/retired"] == 0  # the profile is one solved group
    see(made, group("s0", 4), fate="filtered")
    row = made.advance(2)
    assert (row["curriculum/retired"], row["curriculum/easy"], row["curriculum/medium"]) == (1, 0, 1)
    assert {next(made).sample_id for _ in range(6)} == {"s1"}


def test_a_setback_begins_the_count_anew_and_retirement_may_end() -> None:
    made = pools([8, 4], steps=20, retire_after=2, revisit_steps=3)
    for step, right in enumerate((3, 4, 4), start=1):
        see(made, group("s0", right))
        row = made.advance(step)
        assert row["curriculum/retired"] == (1 if step == 3 else 0)
    assert made.advance(5)["curriculum/retired"] == 1
    assert made.advance(6)["curriculum/retired"] == 0
    see(made, group("s0", 4))
    assert made.advance(7)["curriculum/retired"] == 1, "once more is enough"


def test_hopeless_prompts_rest_and_come_back() -> None:
    made = pools([0, 4], steps=20, rest_after=2, rest_steps=3)
    see(made, group("s0", 0), fate="filtered")
    assert made.advance(1)["curriculum/resting"] == 1
    assert {next(made).sample_id for _ in range(4)} == {"s1"}
    assert made.advance(3)["curriculum/resting"] == 1
    assert made.advance(4)["curriculum/resting"] == 0
    assert "s0" in {next(made).sample_id for _ in range(20)}


def test_when_nothing_is_left_the_run_goes_on() -> None:
    made = pools([8, 0], retire_after=1, rest_after=1, rest_steps=7)
    assert {next(made).sample_id for _ in range(3)} == {"s1"}, "what rests comes back before what has retired"
    assert made.advance(1)["curriculum/woken"] == 3.0
    only = pools([8, 8], retire_after=1)
    assert sorted(next(only).sample_id for _ in range(2)) == ["s0", "s1"]


def test_what_finished_first_does_not_matter() -> None:
    made, other = pools([4, 4], memory=0.5), pools([4, 4], memory=0.5)
    for curriculum, order in ((made, (0, 1)), (other, (1, 0))):
        for uid in order:
            curriculum.observe("s0", group("s0", 4 * uid)[1], "trained", uid)
        curriculum.advance(1)
    assert made.rates().tolist() == other.rates().tolist() == [5 / 8, 0.5]  # 4/8 -> 2/4+0/4 = 2/8 -> 1/4 + 4/4


def test_places_of_filtered_prompts_are_filled_from_their_pool() -> None:
    even = [{"at": 0, "easy": 0.5, "medium": 0, "hard": 0.5}]
    made = pools([8, 8, 8, 1, 1, 1], hold="trained", shares=even, retire_after=9, rest_after=9)
    assert [made.group_of[made._index[next(made).sample_id]] for _ in range(2)] == [0, 2]
    hard = next(name for name in ("s3", "s4", "s5") if made.drawn[made._index[name]])
    see(made, group(hard, 0), fate="filtered")
    made.advance(1)
    # the hard pool has a draw to get back: hard, then by turns
    assert [made.group_of[made._index[next(made).sample_id]] for _ in range(3)] == [2, 0, 2]
    see(made, group(hard, 0), fate="stale")
    before = made.shares.credit.copy()
    made.advance(2)
    assert made.shares.credit.tolist() == before.tolist(), "what got too old is asked for again by the loop"


def run_for(curriculum: Curriculum, steps: range) -> list[str]:
    """Draws of some steps; the outcome of a group follows from its name and step."""
    seen = []
    for step in steps:
        names = [next(curriculum).sample_id for _ in range(4)]
        for uid, name in enumerate(names):
            right = (int(name[1:]) * 7 + step * 3) % 5
            curriculum.observe(name, group(name, right)[1], "filtered" if right in (0, 4) else "trained", uid)
        if step % 3:
            wanted = curriculum.profile_wanted()
            if wanted is not None:
                curriculum.profiled({name: ((step + i) % 8, 8) for i, name in enumerate(wanted.ids)})
            curriculum.advance(step)
        seen += names
    return seen


def gaussian(
    right: list[int],
    of: int = 8,
    steps: int = 11,
    batch: int = 4,
    domains: dict[str, tuple[float, list[int]]] | None = None,
    seed: int = 3,
    **changes: Any,
) -> GaussianCurriculum:
    config = parse_config(GaussianConfig, {"kind": "gaussian", "attempts": ["a"], **changes})
    return GaussianCurriculum(config, profile(right, of, domains), seed, steps, batch)


REFRESH = {"window": 1, "patience": 2, "min_gain": 0.05, "attempts": 8, "most": 9}


@pytest.mark.parametrize(
    "make",
    [
        lambda: pools([0, 1, 2, 4, 4, 6, 8, 8, 3, 5], steps=30, rest_steps=4, hold="trained"),
        lambda: gaussian([0, 1, 2, 4, 4, 6, 8, 8, 3, 5], steps=30, refresh=REFRESH, repeats=1, hold="trained"),
    ],
)
def test_a_checkpoint_keeps_everything(make: Any) -> None:
    whole, broken = make(), make()
    first = run_for(whole, range(1, 14))
    assert run_for(broken, range(1, 14)) == first
    next(broken), next(whole)  # in the middle of a batch
    restored = make()
    restored.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    assert restored.state_dict() == broken.state_dict()
    assert run_for(restored, range(14, 30)) == run_for(whole, range(14, 30))


def test_states_that_do_not_fit() -> None:
    state = pools([4, 4]).state_dict()
    with pytest.raises(CheckpointError, match="other profile"):
        pools([4, 5]).load_state_dict(state)
    with pytest.raises(CheckpointError, match="curriculum of kind pools, not gaussian"):
        gaussian([4, 4]).load_state_dict(state)
    with pytest.raises(CheckpointError, match="had no curriculum"):
        pools([4, 4]).load_state_dict(OrderedPrompts(["s0", "s1"], 3).state_dict())
    with pytest.raises(CheckpointError, match="came from a curriculum"):
        OrderedPrompts(["s0", "s1"], 3).load_state_dict(state)


def test_the_mean_falls_linearly_and_the_nearest_rate_is_asked_for() -> None:
    made = gaussian(list(range(11)), of=10, start_mean=0.8, end_mean=0.2, width=1e-6, solved_from=1.0, repeats=100)
    asked = []
    for step in range(1, 12):
        name = next(made).sample_id
        asked.append(int(name[1:]) / 10)
        made.advance(step)
    # 0.8 - 0.06 step: .8 .74 .68 .62 .56 .5 .44 .38 .32 .26 .2
    assert asked == [0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2]
    assert made.mean() == pytest.approx(0.2)


def test_domains_keep_their_shares_in_every_batch_and_are_shuffled() -> None:
    domains = {"math": (0.5, list(range(20))), "chem": (0.25, list(range(20, 40))), "ocr": (0.25, list(range(40, 60)))}
    made = gaussian([4] * 60, batch=8, domains=domains)
    orders = set()
    for _ in range(5):
        batch = [int(made.prompts.domain[made._index[next(made).sample_id]]) for _ in range(8)]
        assert Counter(batch) == {0: 4, 1: 2, 2: 2}
        orders.add(tuple(batch))
    assert len(orders) > 1


def test_solved_prompts_and_domains_without_a_share_are_left_out() -> None:
    made = gaussian([8, 7, 1, 4], domains={"a": (1.0, [0, 1, 2])}, repeats=1)
    assert {next(made).sample_id for _ in range(12)} == {"s1", "s2"}
    with pytest.raises(DataError, match="domains b hold no prompt with a pass rate below 1"):
        gaussian([4, 8], domains={"a": (0.5, [0]), "b": (0.5, [1])})


def test_rates_follow_the_gaussian() -> None:
    """Of 4,000 evenly spread prompts 1,000 draws have the mean and width asked for (a standard error of 0.003)."""
    right = [i % 100 for i in range(4000)]
    made = gaussian(right, of=100, steps=1, start_mean=0.5, width=0.1)
    rates = [made.rate[made._index[next(made).sample_id]] for _ in range(1000)]
    assert np.mean(rates) == pytest.approx(0.5, abs=0.012)
    assert np.std(rates) == pytest.approx(0.1, abs=0.01)


def test_no_prompt_comes_again_before_others_nearby() -> None:
    made = gaussian([2, 4, 6], start_mean=0.5, end_mean=0.5, width=1e-6, repeats=2)
    assert [next(made).sample_id for _ in range(3)][:2] == ["s1", "s1"]
    counts = Counter(next(made).sample_id for _ in range(3))
    assert counts["s1"] == 0, "gone through twice; the others are as far off"
    assert [next(made).sample_id for _ in range(2)] == ["s1", "s1"], "all have been asked for twice"


def test_truncated_normal_quantiles() -> None:
    assert truncated_normal(0.5, 0.1, 0.5) == pytest.approx(0.5)
    # at the edge of [0, 1]: a half normal, whose median is 0.6745 sigma
    assert truncated_normal(0.0, 0.1, 0.5) == pytest.approx(0.06745, abs=1e-4)
    draws = [uniform(7, number) for number in range(2000)]
    assert all(0 < u < 1 for u in draws) and np.mean(draws) == pytest.approx(0.5, abs=0.03)


def test_a_new_profile_once_progress_stalls() -> None:
    refresh = {"window": 2, "patience": 2, "min_gain": 0.1, "attempts": 4}
    made = gaussian([4, 4, 2], steps=21, start_mean=0.8, end_mean=0.4, refresh=refresh)

    def step(number: int, right: int) -> bool:
        see(made, group("s0", right, of=8))
        made.advance(number)
        return made.profile_wanted() is not None

    # gains over the profile's 4 of 8: 0, .125 (mean .0625, the first best), .25 (.1875: better by .125),
    # .25 (.25: not by .1), .25 (.25)
    assert [step(n, right) for n, right in ((1, 4), (2, 5), (3, 6), (4, 6))] == [False] * 4
    assert step(5, 6), "two steps without a better average"
    wanted = made.profile_wanted()
    assert wanted is not None and wanted.ids == ("s0", "s1", "s2") and wanted.attempts == 4
    made.profiled({"s0": (4, 4), "s1": (3, 4), "s2": (0, 0)})
    assert made.rate.tolist() == [1.0, 0.75, 0.25], "without a valid attempt the old rate stays"
    assert made.mean() == 0.8, "the schedule begins anew"
    assert {next(made).sample_id for _ in range(8)} == {"s1", "s2"}
    assert not any(step(n, 4) for n in range(6, 20)), "one refresh is all that `most` allows"
    made.advance(20)
    assert made.mean() == pytest.approx(0.4)


def test_a_sample_of_the_prompts_is_profiled_anew() -> None:
    made = gaussian([4] * 50, steps=30, refresh=REFRESH | {"prompts": 5})
    run_for_steps = range(1, 6)
    for number in run_for_steps:
        see(made, group("s0", 2, of=4))
        made.advance(number)
        if made.profile_wanted():
            break
    wanted = made.profile_wanted()
    assert wanted is not None and len(wanted.ids) == 5
    made.profiled({name: (8, 8) for name in wanted.ids})
    assert np.count_nonzero(made.rate == 1.0) == 5


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (PoolsConfig, {"easy_from": 0.3, "hard_to": 0.3}, "must lie below easy_from"),
        (PoolsConfig, {"shares": [{"at": 0, "easy": 0.5, "medium": 0.5, "hard": 0.5}]}, "add up to 1.5"),
        (
            PoolsConfig,
            {"shares": [{"at": 1, "easy": 1, "medium": 0, "hard": 0}, {"at": 0, "easy": 1, "medium": 0, "hard": 0}]},
            "rising points",
        ),
        (PoolsConfig, {"rest_to": 0.9, "retire_from": 0.5}, "must lie below retire_from"),
        (PoolsConfig, {"attempts": []}, "at least 1 item"),
    ],
)
def test_settings_that_make_no_sense(model: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(model, {"attempts": ["a"], **changes})
