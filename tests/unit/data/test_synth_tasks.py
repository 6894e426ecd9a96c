"""The families, checked against the pictures themselves: colors are found in the pixels, not in the generator."""

from __future__ import annotations

import io
import re
from collections import deque
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from rewards.registry import VERIFIERS
from rl.config.data import Pool, Source
from rl.data.schema import CORE_COLUMNS, EXTRA_COLUMNS, PROBLEM_TYPES
from rl.data.synth import POOLS, TASKS, make_row
from rl.data.synth.arithmetic import work_difference, work_sum
from rl.data.synth.canvas import COLORS
from rl.errors import DataError

SIZE = 64


def rows_of(source: str, count: int, split: str = "train", size: int = SIZE) -> list[dict[str, Any]]:
    return [make_row(source, split, index, seed=3, image_size=size) for index in range(count)]


def pixels_of(row: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(row["images"][0]["bytes"])) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def mask_of(pixels: np.ndarray, color: str, reach: int = 60) -> np.ndarray:
    """Pixels whose color is within `reach` per channel."""
    return (np.abs(pixels - np.array(COLORS[color])) <= reach).all(axis=2)


def blobs(mask: np.ndarray) -> int:
    """Number of 4-connected regions."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    count = 0
    while left:
        count += 1
        queue = deque([left.pop()])
        while queue:
            y, x = queue.popleft()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    queue.append(near)
    return count


def test_config_names_every_family_and_pool() -> None:
    assert set(get_args(Source)) == set(TASKS)
    assert set(get_args(Pool)) == set(POOLS)


@pytest.mark.parametrize("source", list(TASKS))
def test_rows_have_the_layout(source: str) -> None:
    for index, row in enumerate(rows_of(source, 20)):
        assert tuple(row) == CORE_COLUMNS + EXTRA_COLUMNS
        assert row["id"] == f"{source}_train_{index}"
        assert row["problem"].count("<image>") == len(row["images"])
        assert row["problem_type"] in PROBLEM_TYPES and row["answer_type"] in VERIFIERS
        assert row["source"] == source
        if source == "caption":
            assert row["solution"] == row["answer"][0]
        elif row["prompt_type"] == "normal":
            assert row["solution"] == f"<answer>{row['answer'][0]}</answer>"
        else:
            assert re.fullmatch(
                r"<think>.+</think><answer>" + re.escape(row["answer"][0]) + "</answer>", row["solution"]
            )


@pytest.mark.parametrize("source", list(TASKS))
def test_a_row_depends_on_its_arguments_alone(source: str) -> None:
    first = make_row(source, "eval", 7, seed=1, image_size=SIZE)
    make_row(source, "eval", 8, seed=1, image_size=SIZE)
    assert make_row(source, "eval", 7, seed=1, image_size=SIZE) == first
    others = [make_row(source, "eval", i, seed=s, image_size=SIZE) for i, s in ((8, 1), (9, 1), (7, 2), (7, 3))]
    assert any(other["problem"] != first["problem"] or other["images"] != first["images"] for other in others)


@pytest.mark.parametrize("size", [64, 100])
def test_counting_answers_the_number_of_discs_in_the_picture(size: int) -> None:
    answers = set()
    for row in rows_of("counting", 60, size=size):
        asked = re.search(r"How many (\w+ )?discs", row["problem"])
        assert asked is not None
        colors = [asked.group(1).strip()] if asked.group(1) else ["red", "green", "blue"]
        found = sum(blobs(mask_of(pixels_of(row), color)) for color in colors)
        assert row["answer"] == [str(found)], row["id"]
        answers.add(found)
    assert answers == {0, 1, 2, 3, 4, 5, 6}


def test_grounding_answers_the_box_around_the_color() -> None:
    for row in rows_of("grounding", 40):
        named = re.search(r"box of the (\w+) (disc|square|triangle)\.", row["problem"])
        match = re.fullmatch(r"\[(\d+),(\d+),(\d+),(\d+)\]", row["answer"][0])
        assert named is not None and match is not None
        box = [int(value) for value in match.groups()]
        assert all(value % 250 == 0 for value in box) and set(box) <= set(range(1001))
        ys, xs = np.nonzero(mask_of(pixels_of(row), named.group(1)))
        seen = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        # a pixel is 15.6 thousandths; edges may fall inside one, and a triangle's tip is thinner than one
        assert np.abs(np.array(seen) * 1000 / SIZE - box).max() <= 3 * 1000 / SIZE, row["id"]


def test_spatial_answers_agree_with_the_centres_in_the_picture() -> None:
    letters = set()
    for row in rows_of("spatial", 60):
        named = re.search(r"is the (\w+) \w+ relative to the (\w+) \w+\?", row["problem"])
        assert named is not None
        (ax, ay), (bx, by) = (np.argwhere(mask_of(pixels_of(row), c)).mean(axis=0)[::-1] for c in named.groups())
        across, down = ax - bx, ay - by
        if abs(across) > abs(down):
            word = "left" if across < 0 else "right"
        else:
            word = "above" if down < 0 else "below"
        assert abs(abs(across) - abs(down)) > SIZE * 0.15, "one axis is clearly the longer one"
        letter = row["answer"][0]
        assert f"{letter}. {word}" in row["options"]
        assert row["problem"].endswith(" ".join(row["options"]))
        letters.add(letter)
    assert letters == set("ABCD")


@pytest.mark.parametrize(("source", "named"), [("spatial", {2}), ("grounding", {1}), ("caption", {0, 1, 2, 3, 4})])
def test_cells_in_the_text_hold_the_centres_in_the_picture(source: str, named: set[int]) -> None:
    counts = set()
    for row in rows_of(source, 60):
        written = re.findall(r"(\w+) (?:disc|square|triangle) \((\d),(\d)\)", row["solution"])
        counts.add(len(written))
        for color, column, line in written:
            y, x = np.argwhere(mask_of(pixels_of(row), color)).mean(axis=0)
            assert (int(column), int(line)) == (int(x * 4 // SIZE), int(y * 4 // SIZE))
    assert counts == named


def test_chart_values_are_the_heights_of_the_bars() -> None:
    kinds = set()
    for row in rows_of("chart", 60):
        pixels = pixels_of(row)
        heights = {}
        for color in COLORS:
            found = mask_of(pixels, color, reach=10)
            if found.sum() > 12:
                heights[color] = round(int(found.sum(axis=0).max()) / 8)  # a unit is an eighth of 64 pixels
        asked = re.search(r"value of the (\w+) bar", row["problem"])
        if asked:
            assert row["answer"] == [str(heights[asked.group(1)])] and row["answer_type"] == "number"
            kinds.add("value")
        else:
            pick = max if "highest" in row["problem"] else min
            assert row["answer"] == [pick(heights, key=lambda color: heights[color])]
            assert row["answer_type"] == "string"
            kinds.add(pick.__name__)
    assert kinds == {"value", "max", "min"}


def test_molecules_are_valid_and_labels_stand_on_the_dummy() -> None:
    from rdkit import Chem

    labelled = 0
    for row in rows_of("molecule", 120):
        smiles, sep, extension = row["answer"][0].partition("<sep>")
        molecule = Chem.MolFromSmiles(smiles)
        assert molecule is not None, smiles
        dummies = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0]
        assert bool(sep) == bool(dummies)
        if sep:
            assert dummies == [0]
            assert re.fullmatch(r"<a>0:(R\[1\]|R\[2\]|X|<dum>)</a>", extension)
            labelled += 1
    assert labelled > 20


def test_molecule_pictures_hold_no_text_of_the_answer_and_touch_no_border() -> None:
    for row in rows_of("molecule", 60):
        assert b"rdkit" not in row["images"][0]["bytes"].lower()
        pixels = pixels_of(row)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (border.min(axis=1) > 150).all(), f"{row['id']} is cut off"


def test_arithmetic_is_right_and_within_range() -> None:
    for row in rows_of("arithmetic", 300):
        match = re.fullmatch(r"(\d+)([+-])(\d+)=\?", row["problem"])
        assert match is not None
        a, b = int(match.group(1)), int(match.group(3))
        assert 0 <= a <= 49 and 0 <= b <= 49
        assert int(row["answer"][0]) == (a + b if match.group(2) == "+" else a - b) >= 0
        for left, right in re.findall(r"([\d+-]+)=(\d+)", row["solution"]):
            assert sum(int(term) for term in re.findall(r"[+-]?\d+", left)) == int(right)


@pytest.mark.parametrize(
    ("worked", "text"),
    [
        (work_sum(27, 15), "7+5=12 20+10+10=40"),
        (work_sum(3, 4), "3+4=7 0+0+0=0"),
        (work_difference(42, 15), "12-5=7 40-10-10=20"),
        (work_difference(49, 27), "9-7=2 40-20-0=20"),
    ],
)
def test_worked_solutions(worked: str, text: str) -> None:
    assert worked == text


def test_captions_name_every_color_in_the_picture() -> None:
    for row in rows_of("caption", 60):
        pixels = pixels_of(row)
        shown = {color for color in COLORS if mask_of(pixels, color, reach=10).sum() > 12}
        assert set(re.findall("|".join(COLORS), row["solution"])) == shown, row["solution"]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(DataError, match="unknown synthetic source 'counts'; known: counting, grounding"):
        make_row("counts", "train", 0, seed=0)
    with pytest.raises(DataError, match="'sft' is not a pool; set its pool to one of: train, heldout, eval"):
        make_row("counting", "sft", 0, seed=0)
    assert make_row("counting", "sft", 0, seed=0, pool="train")["id"] == "counting_sft_0"
