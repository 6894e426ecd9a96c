"""Settings of a mixture: judges, named recipes, and which task takes which recipe. Everything is checked at load.

A recipe is a tree. Its leaves are parts that give a value; its inner nodes compose: `weighted`, `gate`, `chain`.

    recipe:
      weighted:
        - {name: accuracy, verifier: auto, weight: 1.0}
        - {name: form, verifier: format, weight: 0.1}
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rewards.judge.settings import JudgeConfig
from rewards.length import LengthConfig
from rewards.settings import Settings, tag, unknown_name

AUTO = "auto"
"""The verifier of the row's own answer type."""
COMPUTED = {"raw": "the value before it is normalised", "outcome": "how right the completion is, see `Recipe.outcome`"}
"""Components that a mixture adds to those of the parts."""


class NodeBase(Settings):
    """What every node of a recipe may say about its place in the node above."""

    weight: float = Field(1.0, allow_inf_nan=False)
    """Share in a `weighted` node; below 0 is a penalty. Means nothing elsewhere."""
    optional: bool = False
    """A failure (timeout, error, unusable gold) leaves the node out, instead of making the whole a failure."""


class PartBase(NodeBase):
    """A leaf."""

    name: str = Field(min_length=1)
    """Key of the part's value in `RewardResult.components`."""
    range: tuple[float, float] | None = None
    """The values that stand for 0 and 1; the part is scaled from them and clipped. Null takes values as they are."""

    @field_validator("range")
    @classmethod
    def _has_extent(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not abs(value[0] - value[1]) > 0:
            raise ValueError(f"range {list(value)} has no extent, so nothing can be scaled by it")
        return value


class VerifierPart(PartBase):
    """A verifier: `auto`, a registered answer type, or a plug-in."""

    verifier: str
    read: str | None = None
    """Take this component of the result instead of its value, such as `repetition` of `format`."""
    settings: dict[str, Any] = {}
    """Set in `sample` for this part, over what the row has there: this is how verifiers get settings."""


class JudgePart(PartBase):
    """A judge from `judges`, whatever the row's answer type is; the row's answers are its references."""

    judge: str
    kind: Literal["judge", "caption-qa"] = "judge"
    rubric: str | None = None
    """Criteria of this task, after those of the judge's own settings."""
    use_reference: bool = True
    """False has the judge grade by the rubric alone."""

    @model_validator(mode="after")
    def _can_judge(self) -> JudgePart:
        if not self.use_reference and not self.rubric:
            raise ValueError("a judge without reference needs a rubric to grade by")
        return self


class LengthPart(PartBase):
    """How long the completion is, see `rewards.length`."""

    length: LengthConfig


class Weighted(NodeBase):
    """Weighted mean: the sum of weight * value over the sum of |weight|, both over the nodes that have a value.

    An optional node that failed thus leaves the weights of the others in their proportions. Without any value left the
    whole is a failure.
    """

    weighted: list[Node] = Field(min_length=1)

    @model_validator(mode="after")
    def _weighs(self) -> Weighted:
        if not any(node.weight for node in self.weighted):
            raise ValueError("all weights are 0, so nothing would count")
        return self


class Gate(NodeBase):
    """`then` where the gate reaches `at_least`, else the value `otherwise`; `then` is not even scored in that case.

    A gate that failed makes the whole a failure; an optional one that failed is open.
    """

    gate: Node
    at_least: float = 1.0
    then: Node
    otherwise: float = Field(0.0, allow_inf_nan=False)


class Chain(NodeBase):
    """Nodes in order, as few as it takes.

    `until: passed` stops at the first that reaches `at_least`, and has the largest value seen: a rule first, a judge
    where the rule says no. `until: failed` stops at the first below `at_least`, and has the smallest value seen: cheap
    checks before dear ones. A node without a value is passed over if it is optional. Otherwise it ends `until: failed`
    as a failure; with `until: passed` a later node may still pass, else the whole is a failure.
    """

    chain: list[Node] = Field(min_length=1)
    until: Literal["passed", "failed"] = "passed"
    at_least: float = 1.0


_KINDS: dict[str, type[NodeBase]] = {
    "verifier": VerifierPart,
    "judge": JudgePart,
    "length": LengthPart,
    "weighted": Weighted,
    "gate": Gate,
    "chain": Chain,
}


def _kind(raw: Any) -> str | None:
    keys = set(raw) if isinstance(raw, Mapping) else {name for name in _KINDS if hasattr(raw, name)}
    named = [kind for kind in _KINDS if kind in keys]
    return tag(named[0]) if len(named) == 1 else None


Node = Annotated[
    Annotated[VerifierPart, Tag(tag("verifier"))]
    | Annotated[JudgePart, Tag(tag("judge"))]
    | Annotated[LengthPart, Tag(tag("length"))]
    | Annotated[Weighted, Tag(tag("weighted"))]
    | Annotated[Gate, Tag(tag("gate"))]
    | Annotated[Chain, Tag(tag("chain"))],
    Discriminator(
        _kind,
        custom_error_type="node_kind",
        custom_error_message=f"a node of a recipe has exactly one of the keys {', '.join(_KINDS)}",
    ),
]


class Running(Settings):
    """Normalise by the task's own running mean and standard deviation, see `rewards.mixture.scale`."""

    window: int = Field(4096, ge=2)
    """Values over which mean and deviation are taken, with exponential forgetting once so many have been seen."""
    min_count: int = Field(32, ge=1)
    """Values that a task needs before it is normalised; until then they are passed through."""
    min_std: float = Field(0.1, gt=0)
    """Smallest divisor: a task that is nearly always right must not blow up its few wrong answers."""
    clip: float = Field(5.0, gt=0)
    """Largest size of a normalised value."""
    center: bool = True
    """False divides by the deviation only, so that 0 stays 0."""


class Normalise(Settings):
    """How a task's value is brought to the scale of the others: by fixed bounds or by its own statistics."""

    range: tuple[float, float] | None = None
    """Bounds of the raw value: they become 0 and 1, and what lies beyond is clipped."""
    running: Running | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Normalise:
        if (self.range is None) == (self.running is None):
            raise ValueError("normalise takes exactly one of range and running; leave normalise out for neither")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)} must rise from the value that becomes 0 to the one for 1")
        return self


class Recipe(Settings):
    """How the completions of a task are graded."""

    reward: Node
    normalise: Normalise | None = None
    outcome: str | None = None
    """The part that says how right a completion is, whatever else is rewarded: a trainer's accuracies and filters read
    it. Null takes the part with `verifier: auto`, if there is just one and no chain holds it, else the value before it
    is normalised."""

    @functools.cached_property
    def outcome_part(self) -> str | None:
        """Name of the part that is the outcome; None where the whole is."""
        if self.outcome is not None:
            return self.outcome
        autos = [part for part in parts_of(self.reward) if isinstance(part, VerifierPart) and part.verifier == AUTO]
        chained = {part.name for chain in _chains(self.reward) for part in parts_of(chain)}
        return autos[0].name if len(autos) == 1 and autos[0].name not in chained else None

    @model_validator(mode="after")
    def _names_its_parts_apart(self) -> Recipe:
        names = [part.name for part in parts_of(self.reward)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"part name {', '.join(twice)} is given twice; one would hide the other in the components")
        for name, meaning in COMPUTED.items():
            if name in names:
                raise ValueError(f"no part may be called {name}; that component is {meaning}")
        if self.outcome is not None and self.outcome not in names:
            raise ValueError(f"outcome: {unknown_name('part', self.outcome, names)}")
        return self


Choice = Annotated[
    Annotated[str, Tag(tag("name"))] | Annotated[Recipe, Tag(tag("recipe"))],
    Discriminator(lambda raw: tag("name" if isinstance(raw, str) else "recipe")),
]


class MixtureConfig(Settings):
    """A whole mixture; `configs/rewards/` has examples."""

    task: str = "source"
    """The column of a row that names its task; a row without it belongs to the task of its answer type."""
    judges: dict[str, JudgeConfig] = {}
    """By the name that parts use. Rows of a judged answer type under `verifier: auto` go to the one called `default`,
    or to the only one."""
    recipes: dict[str, Recipe] = {}
    """Named, for use by several tasks."""
    tasks: dict[str, Choice] = {}
    """Task name, or pattern with `*`, `?` and `[...]`, to a recipe or a recipe's name. An exact name counts before
    every pattern; of the patterns the first in the file that matches."""
    default: Choice | None = None
    """For tasks that nothing else matches; null makes their rows failures, which a run refuses before it starts."""

    @model_validator(mode="after")
    def _names_are_known(self) -> MixtureConfig:
        for where, choice in [
            *((f"tasks.{name}", value) for name, value in self.tasks.items()),
            ("default", self.default),
        ]:
            if isinstance(choice, str) and choice not in self.recipes:
                raise ValueError(f"{where}: {unknown_name('recipe', choice, self.recipes)}")
        for where, recipe in self.all_recipes():
            for part in parts_of(recipe.reward):
                if isinstance(part, JudgePart) and part.judge not in self.judges:
                    raise ValueError(f"{where}, part {part.name}: {unknown_name('judge', part.judge, self.judges)}")
        if not self.tasks and self.default is None:
            raise ValueError("neither tasks nor default is set, so no row could be graded")
        return self

    def all_recipes(self) -> Iterator[tuple[str, Recipe]]:
        """Every recipe once, with its place in the file."""
        yield from ((f"recipes.{name}", recipe) for name, recipe in self.recipes.items())
        yield from ((f"tasks.{name}", value) for name, value in self.tasks.items() if isinstance(value, Recipe))
        if isinstance(self.default, Recipe):
            yield "default", self.default

    def verifiers(self) -> list[str]:
        """The verifiers that recipes name, without `auto`, in order of their names."""
        parts = [part for _, recipe in self.all_recipes() for part in parts_of(recipe.reward)]
        return sorted({part.verifier for part in parts if isinstance(part, VerifierPart)} - {AUTO})

    @property
    def default_judge(self) -> str | None:
        """Name of the judge for rows whose own answer type is judged."""
        if "default" in self.judges:
            return "default"
        return next(iter(self.judges)) if len(self.judges) == 1 else None


def parts_of(node: Any) -> Iterator[Any]:
    """The leaves of a recipe's tree, in order."""
    inner = _inner(node)
    if not inner:
        yield node
    for child in inner:
        yield from parts_of(child)


def _chains(node: Any) -> Iterator[Chain]:
    if isinstance(node, Chain):
        yield node
    for child in _inner(node):
        yield from _chains(child)


def _inner(node: Any) -> list[Any]:
    if isinstance(node, Weighted):
        return node.weighted
    if isinstance(node, Gate):
        return [node.gate, node.then]
    return node.chain if isinstance(node, Chain) else []


for _model in (Weighted, Gate, Chain, Recipe, MixtureConfig):
    _model.model_rebuild()
