"""Configs of `rl curate recaption` and `rl curate trajectories`: curation steps in which models read and write."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rl.config.base import Seed, StrictModel
from rl.config.endpoint import EndpointConfig
from rl.config.rollout import RewardConfig, RolloutConfig

FIGURE_TYPES = ("chart", "diagram", "characterisation", "molecule", "table", "photo", "composite", "other")
"""After OmniScience's kinds (schematic diagrams, experimental characterisations, analytical charts), with those that
scientific figures hold besides; `composite` has panels of several kinds."""
DIFFICULTIES = ("easy", "medium", "hard")
DIMENSIONS = {
    "answer_support": "the final answer follows from the reasoning, and from nothing that was assumed on the way",
    "logic": "each step follows from the ones before it; no contradictions, no leaps",
    "grounding": "what is said about the images is what they show",
    "domain": "terms, laws, units and values of the science are used rightly",
    "completeness": "every step that a reader needs is there, and every part of the question is answered",
    "economy": "no step is repeated, circles back without gain, or has no part in the answer",
}
"""Six qualities of a reasoning trajectory. S1-VL (arXiv 2604.21409) filters by six and publishes no names; these are
ours."""


class ChatModelConfig(StrictModel):
    """A model that is asked: one behind an endpoint, or a folder that our own engine serves on this cluster."""

    endpoint: EndpointConfig | None = None
    model: str | None = None
    rollout: RolloutConfig = RolloutConfig()
    """Workers of a `model`."""
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(2048, ge=1)
    max_pixels: int = Field(1024 * 1024, ge=256)
    """Larger images are scaled down."""

    @model_validator(mode="after")
    def _one_of_two(self) -> ChatModelConfig:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("set either endpoint or model")
        return self


class _AskingConfig(StrictModel):
    models: dict[str, ChatModelConfig] = Field(min_length=1)
    """By the names that the other settings use."""
    tries: int = Field(3, ge=1)
    """Times that a model is asked, each with a seed of its own, until its reply can be read."""
    at_once: int = Field(32, ge=1)
    """Rows worked on at a time."""
    seed: Seed = 0
    ray_address: str | None = None

    def _named(self, wanted: dict[str, str | None]) -> None:
        for key, name in wanted.items():
            if name is not None and name not in self.models:
                raise ValueError(f"{key} names the model {name!r}; known: {', '.join(sorted(self.models))}")


class FigureColumns(StrictModel):
    """Names of the columns; the defaults are those of the public OmniScience set."""

    id: str = "id"
    """Rows without it are named by file and number."""
    image: str = "image"
    caption: str = "raw_caption"
    context: str = "context"
    """In-text references: a text, or a list of them."""
    questions: str = "questions"
    """Questions on the image for caption QA: JSON text or a list of `{question, answer, options}`; may be missing."""


class RouteConfig(StrictModel):
    """Figures of these types and difficulties go to a model; an empty list takes all."""

    types: tuple[str, ...] = ()
    difficulties: tuple[Literal["easy", "medium", "hard"], ...] = ()
    model: str


class CaptionRules(StrictModel):
    """What a new caption must be, without asking anyone."""

    min_words: int = Field(30, ge=1)
    max_words: int = Field(1200, ge=1)
    max_repeated: float = Field(0.2, ge=0, le=1)
    """Largest share of 4-word pieces that stood before in the caption."""
    self_contained: bool = True
    """Refuse captions that point outside: to the text, to other figures, to references."""


class CaptionQuality(StrictModel):
    """Scores of a judge from 1 to 5 for faithfulness, completeness and self-containedness."""

    model: str
    minimum: int = Field(4, ge=1, le=5)
    """Each of the three must reach it."""


class SimilarityConfig(StrictModel):
    """Cosine of image and text in a CLIP-like model, from a local folder; long captions piece by piece."""

    model: str
    minimum: float | None = Field(None, ge=-1, le=1)
    """Captions below are left out; null only measures."""
    improves: bool = False
    """Leave out captions that are less similar than those that they replace."""


class RecaptionConfig(_AskingConfig):
    """OmniScience's recaptioning (arXiv 2602.13758): figure, caption and in-text references joined, routed by figure
    type and difficulty to a model that writes a dense, self-contained caption; then a quality filter."""

    command: Literal["curate-recaption"] = "curate-recaption"
    figures: str
    out: str
    columns: FigureColumns = FigureColumns()
    figure_types: tuple[str, ...] = Field(FIGURE_TYPES, min_length=1)
    router: str | None = None
    """Model that names type and difficulty; null sends every figure to the route without conditions."""
    routes: tuple[RouteConfig, ...] = Field(min_length=1)
    """The first that fits; the last one must fit all."""
    rules: CaptionRules = CaptionRules()
    quality: CaptionQuality | None = None
    similarity: SimilarityConfig | None = None
    reader: EndpointConfig | None = None
    """Language model that answers `questions` from captions alone, before and after: caption QA."""
    duplicates: bool = True
    """Leave out figures whose image file stood before."""

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> RecaptionConfig:
        self._named({"router": self.router, "quality.model": self.quality.model if self.quality else None})
        for number, route in enumerate(self.routes):
            self._named({f"routes.{number}.model": route.model})
            unknown = sorted(set(route.types) - set(self.figure_types))
            if unknown:
                known = ", ".join(self.figure_types)
                raise ValueError(f"routes.{number}.types {', '.join(unknown)} are no figure types; known: {known}")
        if self.routes[-1].types or self.routes[-1].difficulties:
            raise ValueError("the last route must take all figures; give it no types and no difficulties")
        if self.router is None and len(self.routes) > 1:
            raise ValueError("several routes need a router that names type and difficulty; set router")
        return self


class OperationRules(StrictModel):
    """Which image operations of a trajectory are taken out."""

    erroneous: bool = True
    """The code failed, or gave neither image nor text."""
    ineffective: bool = True
    """The image that came back is one that was there before the trajectory began, or shows nothing."""
    redundant: bool = True
    """The code, or the image that came back, was there in an earlier step."""


class GainConfig(StrictModel):
    """Visual information gain: how much more often a model is right with the images of the operations than without."""

    model: str
    attempts: int = Field(4, ge=1)
    """With, and as many without."""
    temperature: float = Field(1.0, ge=0, le=2)
    minimum: float = Field(0.1, ge=-1, le=1)
    """Trajectories with less become plain reasoning."""


class TrajectoryQuality(StrictModel):
    """Scores of a judge from 1 to 5."""

    model: str
    dimensions: dict[str, str] = Field(DIMENSIONS, min_length=1)
    """Name -> what it asks."""
    minimum: int = Field(3, ge=1, le=5)
    """Each dimension must reach it ..."""
    mean: float = Field(4.0, ge=1, le=5)
    """... and the mean of all this."""


class TrajectoriesConfig(_AskingConfig):
    """S1-VL's filtering of reasoning trajectories (arXiv 2604.21409): six dimensions of quality, image operations that
    are redundant, ineffective or erroneous taken out, and those whose images add little made plain reasoning."""

    command: Literal["curate-trajectories"] = "curate-trajectories"
    trajectories: str
    """RL-172K rows with a column `trajectory`: a list of `{role, content, images}`, roles assistant and tool."""
    out: str
    right_answers: bool = True
    """Leave out trajectories whose final answer is wrong under the row's own reward."""
    operations: OperationRules = OperationRules()
    quality: TrajectoryQuality | None = None
    gain: GainConfig | None = None
    rewards: RewardConfig = RewardConfig()

    @model_validator(mode="after")
    def _models_exist(self) -> TrajectoriesConfig:
        names = {"quality.model": self.quality, "gain.model": self.gain}
        self._named({key: value.model for key, value in names.items() if value is not None})
        return self
