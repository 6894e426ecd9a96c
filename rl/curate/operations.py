"""Reasoning trajectories with image operations: reading them, finding operations that add nothing. Pure.

A trajectory is a list of turns. An assistant turn that holds code is an operation, and the tool turn after it what came
of it; the last assistant turn gives the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.extract import final_answer
from rl.config.clean import ImageChecks
from rl.config.rewriting import OperationRules
from rl.curate.pictures import Picture, Pictures, alike
from rl.data.validate import RowError, image_bytes

ROLES = ("assistant", "tool")
_CODE = re.compile(r"```(?:python|py)?\n.*?```|<(code|tool_call)>.*?</\1>", re.DOTALL)
_FAILED = re.compile(
    r"Traceback \(most recent call last\)|^[ \t]*[\w.]{0,80}(?:Error|Exception)[ \t]*:"
    r"|\b(?:execution|tool) (?:failed|error)",
    re.MULTILINE | re.IGNORECASE,
)
MAX_TURNS = 200
MAX_CHARS = 400_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; a tool turn may bring images."""

    role: str
    content: str
    images: tuple[bytes, ...] = ()


def read_turns(value: Any, folder: Path) -> tuple[Turn, ...]:
    """The column `trajectory` of a row.

    Raises:
        RowError: not a list of turns, unknown roles, two tool turns in a row, no answer at the end, too long.
    """
    if not isinstance(value, list) or not value:
        raise RowError("trajectory must be a list of turns with role, content and images")
    turns = []
    for number, item in enumerate(value):
        if not isinstance(item, Mapping) or item.get("role") not in ROLES:
            got = item.get("role") if isinstance(item, Mapping) else type(item).__name__
            raise RowError(f"turn {number} of the trajectory has the role {got!r}; known: {', '.join(ROLES)}")
        content = item.get("content") or ""
        if not isinstance(content, str):
            raise RowError(f"turn {number} of the trajectory has content that is a {type(content).__name__}, not text")
        images = tuple(image_bytes(image, folder, i) for i, image in enumerate(item.get("images") or ()))
        turns.append(Turn(item["role"], content, images))
    if len(turns) > MAX_TURNS or sum(len(turn.content) for turn in turns) > MAX_CHARS:
        raise RowError(f"the trajectory has over {MAX_TURNS} turns or {MAX_CHARS} characters")
    if turns[-1].role != "assistant" or turns[0].role != "assistant":
        raise RowError("a trajectory begins and ends with a turn of the assistant")
    return tuple(turns)


def turn_rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The turns as the column holds them."""
    return [
        {
            "role": turn.role,
            "content": turn.content,
            "images": [{"bytes": data, "path": None} for data in turn.images],
        }
        for turn in turns
    ]


@dataclass(frozen=True, slots=True)
class Operation:
    """Code and what came of it."""

    first: int
    """Number of the assistant's turn; the tool's turns follow it."""
    end: int
    code: str
    output: str
    images: tuple[bytes, ...]


def operations(turns: Sequence[Turn]) -> list[Operation]:
    """The operations of a trajectory, in order."""
    found = []
    for number, turn in enumerate(turns):
        if turn.role != "assistant" or number + 1 >= len(turns) or turns[number + 1].role != "tool":
            continue
        end = number + 1
        while end < len(turns) and turns[end].role == "tool":
            end += 1
        said = turns[number + 1 : end]
        code = "\n".join(match.group() for match in _CODE.finditer(turn.content))
        output = "\n".join(each.content for each in said)
        found.append(Operation(number, end, code, output, tuple(data for each in said for data in each.images)))
    return found


def faults(
    turns: Sequence[Turn], given: Sequence[bytes], rules: OperationRules, pictures: Pictures
) -> list[tuple[Operation, str]]:
    """Operations to take out, each with `erroneous`, `ineffective` or `redundant`.

    Args:
        given: the images of the question.
    """
    found: list[tuple[Operation, str]] = []
    codes: set[str] = set()
    before, earlier = pictures.look(list(given)), list[Picture]()
    for operation in operations(turns):
        seen = pictures.look(list(operation.images))
        code = re.sub(r"\s+", "", operation.code)
        failed = _FAILED.search(operation.output) is not None or any(p.kind == "broken_image" for p in seen)
        nothing = not operation.images and not operation.output.strip()
        if rules.erroneous and (failed or nothing):
            found.append((operation, "erroneous"))
            continue
        if rules.ineffective and seen and all(p.problem is not None or _one_of(p, before) for p in seen):
            found.append((operation, "ineffective"))
            continue
        again = bool(code) and code in codes
        if rules.redundant and (again or (bool(seen) and all(_one_of(p, earlier) for p in seen))):
            found.append((operation, "redundant"))
            continue
        codes.add(code)
        earlier += [picture for picture in seen if picture.problem is None]
    return found


def _one_of(picture: Picture, others: Sequence[Picture]) -> bool:
    """Whether an image is a copy of one of the others, as duplicates are found among rows."""
    import numpy as np

    usable = [other for other in others if other.problem is None]
    if picture.problem is not None or not usable:
        return False
    if any(other.digest == picture.digest for other in usable):
        return True
    mine = np.array([picture.hash] * len(usable), dtype=np.uint64)
    hashes = np.array([other.hash for other in usable], dtype=np.uint64)
    thumbs = [np.frombuffer(each.thumb, np.uint8)[None] for each in (picture, *usable)]
    return bool(alike(mine, np.repeat(thumbs[0], len(usable), axis=0), hashes, np.concatenate(thumbs[1:])).any())


def without(turns: Sequence[Turn], removed: Sequence[Operation]) -> tuple[Turn, ...]:
    """The trajectory without these operations: code, what was said around it and what came of it."""
    gone = {number for operation in removed for number in range(operation.first, operation.end)}
    return tuple(turn for number, turn in enumerate(turns) if number not in gone)


def plain_reasoning(turns: Sequence[Turn]) -> str | None:
    """The trajectory as `<think>...</think><answer>...</answer>` without code and images; None without an answer."""
    answer = final_answer(turns[-1].content)
    if answer is None:
        return None
    texts = [_CODE.sub("", turn.content) for turn in turns if turn.role == "assistant"]
    texts[-1] = re.sub(r"<answer>.*\Z", "", texts[-1], flags=re.DOTALL)
    thought = "\n".join(part for text in texts if (part := re.sub(r"</?think>", "", text).strip()))
    return f"<think>{thought}</think><answer>{answer}</answer>"


def looker() -> Pictures:
    """Looks at images of any size: a crop may be small."""
    return Pictures(ImageChecks(min_side=1, max_aspect=1e6))
