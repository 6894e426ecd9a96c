"""The final answer of a completion: what stands after the reasoning, and nothing else.

Every function here takes time linear in its input; completions are hostile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Protocol

from rewards.base import RewardResult, Verifier, no_answer

MAX_BOXES = 500
MAX_BRACES = 10_000
_THINK = re.compile(r"<(/?)think>", re.IGNORECASE)
_LAST_THINK = re.compile(r".*<(/?)think>", re.IGNORECASE | re.DOTALL)
_ANSWER = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BRACES = re.compile(r"\\boxed\s{0,8}\{|\\.|\{|\}", re.DOTALL)  # literal starts: a set would slow the search


def after_reasoning(completion: str) -> str | None:
    """The text after the last `</think>`; the whole text where there are no think tags; None while one is open."""
    last = _LAST_THINK.match(completion)
    if last is None:
        return completion
    return completion[last.end() :] if last.group(1) else None


def with_opened_reasoning(completion: str, prompt: str | None) -> str:
    """The completion behind the `<think>` that its prompt ends in, if it does.

    Chat templates open the reasoning in the prompt; without the tag a cut-off completion would look like a bare answer.
    """
    return "<think>" + completion if prompt is not None and prompt.rstrip().endswith("<think>") else completion


def final_answer(completion: str) -> str | None:
    r"""The last complete `<answer>...</answer>` or balanced `\boxed{...}` after the reasoning, stripped; None if none.

    Nothing inside the reasoning counts, and an unclosed tag is no answer. Several answers side by side that differ are
    no answer either: which of them is meant can't be told, and offering many must not be a way to win. Answers that
    differ only in white space, `$` or a box around them are the same.
    """
    text = after_reasoning(completion)
    if text is None:
        return None
    answers, rest = _answer_spans(text)
    if _differ(answers):
        return None
    boxes = [box.strip() for piece in rest for box in boxed(piece) if box.strip()]
    if _differ([*answers[:1], *boxes]):
        return None
    found = answers or boxes
    return found[-1] if found else None


def boxed(text: str) -> list[str]:
    r"""Contents of the balanced `\boxed{...}` of a text in order; of nested ones the outermost complete one.

    Empty where there are over `MAX_BOXES` of them, or `MAX_BRACES` braces behind the first: no answer looks like that.
    """
    spans: list[tuple[int, int]] = []  # disjoint, in order
    stack: list[int | None] = []  # start of a box's content, None for a plain brace
    first = text.find("\\boxed")
    if first < 0 or text.count("\\boxed", first) > MAX_BOXES or text.count("{", first) > MAX_BRACES:
        return []
    while first and text[first - 1] == "\\":
        first -= 1  # of two backslashes the second starts no command
    for token in _BRACES.finditer(text, first):
        word = token.group()
        if word.startswith("\\boxed") and word.endswith("{"):
            stack.append(token.end())
        elif word == "{":
            stack.append(None)
        elif word == "}" and stack:
            start = stack.pop()
            if start is None:
                continue
            while spans and spans[-1][0] > start:
                spans.pop()  # lies within the box that has just closed
            spans.append((start, token.start()))
    return [text[start:end] for start, end in spans]


def unbox(text: str) -> str:
    r"""The content of the one `\boxed{}` in an answer, else the text: `The sum is \boxed{5}` gives `5`."""
    if "\\boxed" not in text:
        return text
    contents = {item.strip() for item in boxed(text)}
    return contents.pop() if len(contents) == 1 else text


def is_well_formed(completion: str, *, thinks: bool = True) -> bool:
    """True for exactly `<think>...</think><answer>...</answer>` up to white space; without `thinks`, the answer only.

    The opening think tag may be missing, because chat templates often put it into the prompt.
    """
    text = completion.strip()
    if text[-9:].lower() != "</answer>":
        return False
    answer_tags, think_tags = ([tag.group(1) for tag in islice(tags.finditer(text), 3)] for tags in (_ANSWER, _THINK))
    if answer_tags != ["", "/"]:
        return False
    if not thinks:
        return not think_tags and text[:8].lower() == "<answer>"
    if think_tags not in (["", "/"], ["/"]) or (len(think_tags) == 2 and text[:7].lower() != "<think>"):
        return False
    after = after_reasoning(text)
    return after is not None and after.lstrip()[:8].lower() == "<answer>"


class Grade(Protocol):
    """Grades a final answer that has been found."""

    def __call__(self, prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult: ...


def on_final_answer(grade: Grade) -> Verifier:
    """The verifier that grades a completion's final answer, and gives `no_answer` where there is none."""

    def verify(
        completion: str, answer: str, *, prompt: str | None = None, sample: Mapping[str, Any] | None = None
    ) -> RewardResult:
        prediction = final_answer(completion)
        return no_answer() if prediction is None else grade(prediction, answer, sample or {})

    verify.__doc__ = grade.__doc__
    return verify


def _answer_spans(text: str) -> tuple[list[str], list[str]]:
    """Contents of the complete answer tags, stripped, and the text between them up to an unclosed tag.

    Empty ones are left out, and it ends with the second answer that differs from the first.
    """
    answers: list[str] = []
    rest: list[str] = []
    opened: re.Match[str] | None = None
    cursor = 0
    for tag in _ANSWER.finditer(text):
        if not tag.group(1):
            opened = tag  # a second opening tag replaces the first, which is then unclosed
        elif opened is not None:
            rest.append(text[cursor : opened.start()])
            content = text[opened.end() : tag.start()].strip()
            cursor, opened = tag.end(), None
            if content:
                answers.append(content)
            if content and _differ([answers[0], content]):
                return answers, rest
    rest.append(text[cursor : opened.start()] if opened is not None else text[cursor:])
    return answers, rest


def _differ(answers: list[str]) -> bool:
    others = [answer for answer in answers[1:] if answer != answers[0]]
    return bool(others) and any(_same_key(answer) != _same_key(answers[0]) for answer in others)


def _same_key(answer: str) -> str:
    return "".join(unbox(answer).split()).replace("$", "")
