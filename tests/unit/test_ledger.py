"""Every admitted prompt has exactly one fate."""

from __future__ import annotations

import json

import pytest

from rl.errors import LedgerError
from rl.ledger import Admission, Ledger


def make() -> tuple[Ledger, list[dict]]:
    rows: list[dict] = []
    return Ledger(rows.append), rows


def test_uids_count_up_and_rows_are_written_as_fates_fall():
    ledger, rows = make()
    assert ledger.admit("a", 0) == Admission(0, "a", 0)
    assert ledger.admit("a", 3) == Admission(1, "a", 3)
    assert rows == []
    ledger.close(1, "trained", step=4)
    ledger.close(0, "filtered", "all_right", 4)
    assert rows == [
        {"uid": 1, "sample_id": "a", "admitted_version": 3, "fate": "trained", "reason": "", "step": 4},
        {"uid": 0, "sample_id": "a", "admitted_version": 0, "fate": "filtered", "reason": "all_right", "step": 4},
    ]


def test_a_second_fate_is_refused_and_changes_nothing():
    ledger, rows = make()
    ledger.admit("a", 0)
    ledger.close(0, "stale", "older than 1 versions")
    before = ledger.counts(), len(rows)
    with pytest.raises(LedgerError, match=r"prompt 0 got the fate 'trained'.*exactly one"):
        ledger.close(0, "trained")
    assert (ledger.counts(), len(rows)) == before


def test_a_prompt_that_was_never_admitted_has_no_fate():
    ledger, _ = make()
    with pytest.raises(LedgerError, match="prompt 7"):
        ledger.close(7, "trained")


def test_counts_add_up_at_any_moment():
    ledger, _ = make()
    for i in range(6):
        ledger.admit(f"s{i}", 0)
        ledger.check()
    ledger.close(0, "trained", step=1)
    ledger.close(1, "filtered", "all_wrong")
    ledger.close(2, "filtered", "all_right")
    ledger.close(3, "failed", "reward: timeout")
    ledger.close(4, "stale", "old")
    ledger.check()
    assert ledger.counts() == {
        "admitted": 6,
        "trained": 1,
        "filtered": 2,
        "failed": 1,
        "stale": 1,
        "in_flight": 1,
    }
    assert ledger.in_flight == (Admission(5, "s5", 0),)
    assert ledger.reasons() == {
        "trained": 1,
        "filtered:all_wrong": 1,
        "filtered:all_right": 1,
        "failed:reward: timeout": 1,
        "stale:old": 1,
    }


def test_a_sum_that_does_not_add_up_is_an_error():
    ledger, _ = make()
    ledger.admit("a", 0)
    state = ledger.state_dict()
    ledger.load_state_dict(state | {"open": []})  # as if a prompt had been lost
    with pytest.raises(LedgerError, match="1 prompts were admitted and 0 are accounted for"):
        ledger.check()


def test_finish_writes_what_is_in_flight():
    ledger, rows = make()
    for sample in "abc":
        ledger.admit(sample, 2)
    ledger.close(1, "trained", step=3)
    ledger.finish()
    assert [(row["uid"], row["fate"]) for row in rows] == [(1, "trained"), (0, "in_flight"), (2, "in_flight")]
    assert rows[1]["reason"] == "run ended" and rows[1]["step"] is None


def test_state_goes_through_json_and_back():
    ledger, _ = make()
    for sample in "abcd":
        ledger.admit(sample, 1)
    ledger.close(2, "trained", step=2)
    ledger.close(0, "failed", "reward: error")
    resumed, rows = make()
    resumed.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    assert resumed.counts() == ledger.counts() and resumed.reasons() == ledger.reasons()
    assert resumed.in_flight == (Admission(1, "b", 1), Admission(3, "d", 1))
    assert resumed.admit("e", 2).uid == 4, "uids are unique in a run, resumed or not"
    resumed.close(1, "trained", step=3)
    with pytest.raises(LedgerError):
        resumed.close(0, "trained")
    resumed.check()
    assert [row["uid"] for row in rows] == [1]


def test_fates_since_a_step_are_counted_from_its_mark_across_a_resume():
    ledger, _ = make()
    for sample in "abcde":
        ledger.admit(sample, 0)
    ledger.close(0, "filtered", "all_wrong")
    ledger.close(1, "trained", step=1)
    assert ledger.since_mark() == {"filtered:all_wrong": 1, "trained": 1}
    ledger.mark()
    assert ledger.since_mark() == {}
    ledger.close(2, "filtered", "all_wrong")
    resumed, _ = make()
    resumed.load_state_dict(json.loads(json.dumps(ledger.state_dict())))
    resumed.close(3, "failed", "reward: timeout")
    assert resumed.since_mark() == {"filtered:all_wrong": 1, "failed:reward: timeout": 1}
    assert resumed.reasons()["filtered:all_wrong"] == 2
