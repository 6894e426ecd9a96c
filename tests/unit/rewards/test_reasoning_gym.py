"""reasoning-gym: every dataset grades its own answers through a row, and no answer is run as code."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import rewards
from rewards.gym_entry import COLUMN, GymEntry, loads
from rewards.verifiers.reasoning_gym import EXAMPLES, is_harmless

pytest.importorskip("reasoning_gym")

from reasoning_gym.factory import DATASETS

NAMES = sorted(set(DATASETS) - {"composite"})
WITHOUT_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Datasets whose entries name no answer; any that their grader accepts is right."""


def answer(text: str) -> str:
    return f"<think>so</think><answer>{text}</answer>"


def score(text: str, sample: dict[str, Any]) -> rewards.RewardResult:
    return rewards.score(answer(text), "x", "reasoning-gym", sample=sample)


@functools.cache
def row_of(name: str) -> dict[str, Any]:
    from rl.data.gym import gym_rows

    return next(gym_rows(name, 1, seed=5))


def test_its_examples() -> None:
    for example in EXAMPLES:
        for text in example.right:
            assert rewards.score(text, example.answer, "reasoning-gym", sample=example.sample).value == 1.0, text
        for text in example.wrong:
            assert rewards.score(text, example.answer, "reasoning-gym", sample=example.sample).value == 0.0, text


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_accepts_its_own_answer_from_a_row(name: str) -> None:
    row = row_of(name)
    assert loads(row[COLUMN]).dataset == name
    if name in WITHOUT_ANSWER:
        assert not loads(row[COLUMN]).entry["answer"]
        assert score("surely not this", row).status == "ok"
    else:
        assert score(row["answer"][0], row).value == 1.0
        wrong = score("surely not this", row)
        assert wrong.status == "ok" and wrong.value is not None and wrong.value < 0.2


@pytest.mark.parametrize("name", ["arc_agi", "graph_color", "knights_knaves", "rearc"])
def test_entries_come_back_as_they_were(name: str) -> None:
    import reasoning_gym

    entry = reasoning_gym.create_dataset(name, seed=11, size=1)[0]
    assert loads(GymEntry(name, {}, entry).dumps()).entry == entry


def test_values_that_json_lacks_come_back() -> None:
    odd = {"answer": "a", "metadata": {(1, 2): {3, 4}, "__tuple__": [1], 5: (None, [True, 1.5])}}
    assert loads(GymEntry("x", {}, odd).dumps()).entry == odd


def test_rows_make_a_dataset(tmp_path: Path) -> None:
    from rl.data.formats import read_samples
    from rl.data.gym import write_gym

    path = write_gym(tmp_path / "gym.parquet", {"leg_counting": 3, "rubiks_cube": 2}, seed=1)
    samples = list(read_samples(str(path)))
    assert [sample.source for sample in samples] == ["reasoning-gym/leg_counting"] * 3 + [
        "reasoning-gym/rubiks_cube"
    ] * 2
    first = samples[0]
    assert rewards.score(answer(first.answers[0]), first.answers, first.answer_type, sample=first.extra).value == 1.0


def test_the_command_writes_a_dataset(tmp_path: Path) -> None:
    from rl.cli.app import app
    from rl.data.formats import read_samples

    path = tmp_path / "new" / "gym.parquet"
    told = CliRunner().invoke(app, ["data", "gym", str(path), "leg_counting=2", "basic_arithmetic=3", "--seed", "7"])
    assert told.output.strip() == f"{path}: 5 rows of 2 datasets"
    assert [sample.id for sample in read_samples(str(path))] == [
        "leg_counting_7_0",
        "leg_counting_7_1",
        "basic_arithmetic_7_0",
        "basic_arithmetic_7_1",
        "basic_arithmetic_7_2",
    ]


def test_all_stands_for_every_dataset_not_named() -> None:
    from rl.data.gym import parse_counts

    counts = parse_counts(["leg_counting=5", "all=1"])
    assert counts["leg_counting"] == 5 and counts["rubiks_cube"] == 1
    assert counts.keys() == DATASETS.keys() - {"composite"}


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["leg_counting"], "'leg_counting' is not of the form NAME=ROWS"),
        (["leg_counting=0"], "'leg_counting=0' is not"),
        (["leg_counting=-1"], "'leg_counting=-1' is not"),
        (["leg_counting=1", "leg_counting=2"], "given twice"),
    ],
)
def test_counts_that_can_not_be_read(items: list[str], said: str) -> None:
    from rl.data.gym import parse_counts
    from rl.errors import DataError

    with pytest.raises(DataError, match=said):
        parse_counts(items)


def test_rows_that_can_not_be_made() -> None:
    from rl.data.gym import gym_rows, write_gym
    from rl.errors import DataError

    with pytest.raises(DataError, match="did you mean leg_counting"):
        next(gym_rows("leg_countin", 1, seed=0))
    with pytest.raises(DataError, match="can't be made with"):
        next(gym_rows("leg_counting", 1, seed=0, config={"legs": 3}))
    with pytest.raises(DataError, match="composite"):
        next(gym_rows("composite", 1, seed=0))
    with pytest.raises(DataError, match="no rows"):
        write_gym("unused.parquet", {}, seed=0)


def test_a_dataset_is_made_with_the_rows_config() -> None:
    from rl.data.gym import gym_rows

    (row,) = gym_rows("spell_backward", 1, seed=0, config={"min_word_len": 5, "max_word_len": 6})
    assert loads(row[COLUMN]).config == {"min_word_len": 5, "max_word_len": 6}
    assert 5 <= len(row["answer"][0]) <= 6
    assert score(row["answer"][0], row).value == 1.0


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("spiral_matrix", "[open({path!r}, 'w')]"),
        ("n_queens", "[[x for x in (open({path!r}, 'w'),)]]"),
        ("binary_matrix", "__import__('pathlib').Path({path!r}).touch()"),
        ("string_insertion", "open({path!r}, 'w').name"),
        ("countdown", "open({path!r}, 'w')"),
        ("puzzle24", "__import__('pathlib').Path({path!r}).touch()"),
        ("simple_integration", "open({path!r}, 'w')"),
        ("intermediate_integration", "eval({path!r})"),
        ("polynomial_multiplication", "open({path!r}, 'w')"),
    ],
)
def test_answers_are_not_run(name: str, write: str, tmp_path: Path) -> None:
    path = tmp_path / "written"
    result = score(write.format(path=str(path)), row_of(name))
    assert (result.status, result.value) == ("ok", 0.0)
    assert not path.exists()


def test_an_unsolved_integral_is_no_answer() -> None:
    row = row_of("simple_integration")
    metadata = loads(row[COLUMN]).entry["metadata"]
    result = score(f"Integral({metadata['integrand']}, {metadata['variable']})", row)
    assert (result.status, result.value) == ("ok", 0.0)


@pytest.mark.parametrize(
    ("name", "text", "harmless"),
    [
        ("countdown", "(3 + 4)*5 - 6/2", True),
        ("countdown", "9**9", False),
        ("countdown", "9* *9", False),
        ("countdown", "x + 1", False),
        ("simple_integration", "x**3/3 - 2*X**2 + C", True),
        ("intermediate_integration", "(x + 1)**(3/2)*exp(2*x)/sqrt(pi) + log(Abs(x)) + C", True),
        ("intermediate_integration", "3*x**10*sin(x)", True),
        ("simple_integration", "9**9**9", False),
        ("simple_integration", "9**(9**(9))", False),
        ("simple_integration", "x**10000", False),
        ("simple_integration", "((((9)**99)**99)**99)**99", False),
        ("simple_integration", "integrate(x, x)", False),
        ("simple_integration", "x.subs", False),
        ("simple_integration", "x__class__", False),
        ("spiral_matrix", "1 2 3", True),
        ("spiral_matrix", "[1, 2, '3']", True),
        ("spiral_matrix", "[0]*10", False),
        ("leg_counting", "f(x)", True),
        ("leg_counting", "1" * 20_001, False),
    ],
)
def test_what_may_reach_a_grader(name: str, text: str, harmless: bool) -> None:
    assert is_harmless(text, name) is harmless


HOSTILE = ["1" * 19_000, "[" * 19_000, "\x00", "nan", "1e999", "-"]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: repr(text[:4]))
def test_hostile_answers_are_wrong_for_every_dataset(hostile: str) -> None:
    for name in NAMES:
        result = score(hostile, row_of(name))
        # Partial credit for the form is the graders' own affair: tsumego gives 0.4 for an E9 inside 1e999.
        assert result.status == "ok" and result.value is not None and result.value < 0.5, (name, result)


def test_graders_that_take_anything_are_not_asked() -> None:
    row = row_of("game_of_life_halting")
    own = row["answer"][0]
    assert score(own.lower(), row).value == 1.0
    assert [score(text, row).value for text in ({"True": "False", "False": "True"}[own], "-", "x")] == [0.0] * 3


@pytest.mark.parametrize(
    "column",
    [
        None,
        5,
        "{",
        "[" * 100_000,
        '{"dataset": "leg_countin", "entry": {"answer": "1", "metadata": {}}}',
        '{"dataset": "leg_counting"}',
        '{"dataset": "leg_counting", "entry": {}}',
        '{"dataset": "leg_counting", "entry": {"answer": 1, "metadata": {}}}',
        '{"dataset": "leg_counting", "config": {"legs": 3}, "entry": {"answer": "1", "metadata": {}}}',
    ],
)
def test_rows_without_a_usable_entry(column: object) -> None:
    result = score("1", {COLUMN: column})
    assert (result.status, result.value) == ("invalid_gold", None)


def test_a_grader_that_fails_on_its_own_answer_is_an_error() -> None:
    torn = GymEntry("complex_arithmetic", {}, {"question": "", "answer": "1.0", "metadata": {}}).dumps()
    result = score("2.0", {COLUMN: torn})
    assert (result.status, result.value) == ("error", None)
    assert "complex_arithmetic: KeyError" in result.detail
