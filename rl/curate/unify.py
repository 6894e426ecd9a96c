"""One reasoning format: foreign instructions off the problem, bare answers, solutions in think and answer tags.

Pure: a sample in, a sample and the names of what was changed out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rewards.extract import after_reasoning, boxed, final_answer
from rl.config.data import PromptConfig
from rl.config.formatting import Form, UnifyConfig
from rl.records import Sample

EDGE_CHARS = 1200
"""Instructions are looked for so far from either end of a problem."""
MOST_PEELED = 12
"""Sentences that are taken off at most."""

_BOX = r"(?:a |the )?\\boxed\{[^{}]{0,20}\}"
_TAGS = r"<answer>\s{0,9}(?:\.{3})?\s{0,9}</answer>(?: tags?)?"
_WITHIN = r"(?:within|inside|in)"
THINK = (
    rf"(?:please )?(?:think|reason) step by step,? and (?:put|give) (?:your|the) final answer {_WITHIN} {_BOX}",
    r"(?:please |let's )?(?:think|reason) (?:about (?:it|this) )?step by step"
    r"(?: and output the final answer after \"?####\"?)?",
    r"you first think about the reasoning process as an internal monologue and then provide the final answer",
    r"the reasoning process must be enclosed within <think>\s{0,9}</think> tags",
    rf"(?:please )?(?:put|give) (?:your|the) final answer {_WITHIN} (?:{_BOX}|{_TAGS})",
    rf"the final answer must be (?:put|enclosed) {_WITHIN} (?:{_BOX}|{_TAGS})",
    rf"(?:first )?output the thinking process {_WITHIN} <think>\s{{0,9}}</think>(?: tags)? and (?:then )?"
    rf"(?:output )?the final answer(?: \([^()]{{1,40}}\))? {_WITHIN} {_TAGS}",
)
"""Instructions of datasets in use (MATH, Geometry3k, GSM8K, R1-V) that ask for reasoning."""
NORMAL = (
    r"(?:please )?answer (?:the question )?(?:using|with|in) a single word(?: or phrase)?(?: or number)?",
    r"(?:please )?answer with the (?:option's )?(?:option )?letter(?: of the correct option)?"
    r"(?: from the given (?:choices|options))?(?: directly)?",
    r"(?:please )?answer (?:the question )?directly",
    r"(?:please )?give only the final answer",
)
"""Instructions that ask for the answer alone (LLaVA's, among others)."""

_HASHES = re.compile(r"(?:^|\n)#### *([^\n]{1,2000})\s*\Z")


@dataclass(frozen=True, slots=True)
class Instructions:
    """Compiled patterns of instructions at the ends of a text, with the form that each asks for."""

    ends: tuple[tuple[re.Pattern[str], Form], ...]
    starts: tuple[tuple[re.Pattern[str], Form], ...]

    @classmethod
    def of(cls, config: UnifyConfig, prompts: PromptConfig) -> Instructions:
        """Those known, the config's, and the run's own."""
        own: list[tuple[str, Form]] = [(re.escape(prompts.think.strip().rstrip(".")), "think")] * bool(prompts.think)
        own += [(re.escape(prompts.normal.strip().rstrip(".")), "normal")] * bool(prompts.normal)
        own += [(re.escape(prompts.spatial.strip().rstrip(".")), "think")] * bool(prompts.spatial)
        known: list[tuple[str, Form]] = [
            *own,
            *((pattern, "think") for pattern in (*config.think_patterns, *THINK)),
            *((pattern, "normal") for pattern in (*config.normal_patterns, *NORMAL)),
        ]
        flags = re.IGNORECASE
        ends = tuple((re.compile(rf"(?<!\w)(?:{p})[.!]?\s*\Z", flags), form) for p, form in known)
        starts = tuple((re.compile(rf"\s*(?:{p})(?:[.!]\s*|\s*\n\s*)", flags), form) for p, form in known)
        return cls(ends, starts)

    def take_off(self, text: str) -> tuple[str, Form | None]:
        """The text without instructions at its ends, and the form that they ask for; reasoning wins over none."""
        forms: set[Form] = set()
        for _ in range(MOST_PEELED):
            shorter, form = self._once(text)
            if form is None or not shorter.strip():
                break
            text = shorter
            forms.add(form)
        if not forms:
            return text, None
        return text, "think" if "think" in forms else "normal"

    def _once(self, text: str) -> tuple[str, Form | None]:
        cut = max(0, len(text) - EDGE_CHARS)
        for pattern, form in self.ends:
            found = pattern.search(text, cut)
            if found is not None and _begins_a_sentence(text, found.start()):
                return text[: found.start()].rstrip(), form
        for pattern, form in self.starts:
            found = pattern.match(text[:EDGE_CHARS])
            if found is not None:
                return text[found.end() :].lstrip(), form
        return text, None


def _begins_a_sentence(text: str, at: int) -> bool:
    """An instruction that goes on within a sentence is part of the question."""
    before = text[:at].rstrip(" \t")
    return text[at].isupper() or not before or before[-1] in "\n.?!:;>)\"'"


def unify(sample: Sample, config: UnifyConfig, instructions: Instructions) -> tuple[Sample, tuple[str, ...]]:
    """The sample in the unified format, and the names of the changes (keys of `CHANGES`)."""
    changes: list[str] = []
    problem, asked = instructions.take_off(sample.problem) if config.instructions else (sample.problem, None)
    if problem != sample.problem:
        changes.append("instruction_removed")
    prompt_type = _form(sample, config, asked)
    if prompt_type != sample.prompt_type:
        changes.append("form_changed")
    answers = tuple(bare_answer(answer) for answer in sample.answers) if config.answers else sample.answers
    if answers != sample.answers:
        changes.append("answer_unwrapped")
    extra = dict(sample.extra)
    solution = extra.get("solution")
    if config.solutions and isinstance(solution, str) and solution.strip():
        extra["solution"], found = tagged_solution(solution, answers, thinks=prompt_type != "normal")
        changes += found
    made = replace(sample, problem=problem, prompt_type=prompt_type, answers=answers, extra=extra)
    return made, tuple(changes)


CHANGES = {
    "instruction_removed": "the problem said in which form to answer; the run's instruction takes that place",
    "form_changed": "the row asks for reasoning, or for the answer alone, where it did not before",
    "answer_unwrapped": "a gold answer stood in a box or in answer tags",
    "solution_tagged": "the solution was brought into think and answer tags",
    "solution_took_gold": "the solution names no final answer; the gold stands in its answer tag",
    "solution_disagrees": "the solution's final answer is written otherwise than the gold; it stays",
    "without_reasoning": "the row asks for reasoning, and its solution has none",
    "reasoning_dropped": "the row asks for the answer alone; the solution's reasoning is left out",
}


def bare_answer(answer: str) -> str:
    r"""A gold answer without `\boxed{}` or answer tags around the whole of it."""
    text = answer.strip()
    tag = re.fullmatch(r"<answer>(.*)</answer>", text, re.DOTALL | re.IGNORECASE)
    inner = tag.group(1).strip() if tag and "<answer>" not in tag.group(1) else text
    boxes = boxed(inner)
    if len(boxes) == 1 and re.sub(r"[\s$]", "", inner) == re.sub(r"[\s$]", "", f"\\boxed{{{boxes[0]}}}"):
        inner = boxes[0].strip()
    return inner or answer


def tagged_solution(solution: str, golds: tuple[str, ...], *, thinks: bool) -> tuple[str, list[str]]:
    """A solution as `<think>...</think><answer>...</answer>`, or as the answer tag alone, and what was changed."""
    changes: list[str] = []
    reasoning, answer = _parts(solution)
    if answer is None:
        answer = golds[0]
        changes.append("solution_took_gold")
    elif not any(_squeezed(answer) == _squeezed(gold) for gold in golds):
        changes.append("solution_disagrees")
    if thinks and not reasoning:
        changes.append("without_reasoning")
    if thinks:
        made = f"<think>{reasoning}</think><answer>{answer}</answer>"
    else:
        made = f"<answer>{answer}</answer>"
        if reasoning:
            changes.append("reasoning_dropped")
    if made != solution:
        changes.insert(0, "solution_tagged")
    return made, changes


def _parts(solution: str) -> tuple[str, str | None]:
    """(reasoning, final answer) of a solution in any of the formats in use."""
    rest = after_reasoning(solution)
    if rest is None:  # a think tag that never closes: all of it is reasoning
        return _untagged(solution), None
    answer = final_answer(solution)
    if rest != solution:
        thought = _untagged(solution[: len(solution) - len(rest)])
        said = _without_answers(rest)
        short = answer is not None and (not said or _squeezed(said) == _squeezed(f"\\boxed{{{answer}}}"))
        return (thought if short else "\n".join(part for part in (thought, said) if part)), answer
    if answer is None and (hashes := _HASHES.search(solution)) is not None:
        return solution[: hashes.start()].strip(), hashes.group(1).strip()
    without = _without_answers(solution)
    if answer is not None and _squeezed(without) in (_squeezed(answer), _squeezed(f"\\boxed{{{answer}}}")):
        without = ""
    return without, answer


def _without_answers(text: str) -> str:
    """The text without what stands in complete answer tags."""
    kept, cursor, opened = [], 0, -1
    for tag in re.finditer(r"<(/?)answer>", text, re.IGNORECASE):
        if not tag.group(1):
            opened = tag.start()
        elif opened >= 0:
            kept.append(text[cursor:opened])
            cursor, opened = tag.end(), -1
    return "".join([*kept, text[cursor:]]).strip()


def _untagged(text: str) -> str:
    return re.sub(r"</?think>", "", text, flags=re.IGNORECASE).strip()


def _squeezed(text: str) -> str:
    return re.sub(r"[\s$]+", "", text).casefold()


def _form(sample: Sample, config: UnifyConfig, asked: Form | None) -> str:
    if sample.problem_type in config.forms:
        return config.forms[sample.problem_type]
    if config.form != "keep":
        return config.form
    return asked or sample.prompt_type
