"""Configs of `data.curriculum`: which prompts a run asks for, by what the policy makes of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rl.config.base import StrictModel
from rl.config.curate import CompositionConfig


class _CurriculumConfig(StrictModel):
    """What both kinds share."""

    attempts: tuple[str, ...] = Field(min_length=1)
    """Folders of `rl curate profile`: the pass rates that the run begins with."""
    policy: str | None = None
    """Whose attempts; null where there is one policy."""
    unprofiled: float | None = Field(None, ge=0, le=1)
    """Pass rate that prompts without attempts are taken to have; null is an error where there are some."""
    hold: Literal["asked", "trained"] = "asked"
    """What keeps the shares: the prompts that are asked for, or those that are trained on, so that a prompt which is
    filtered, fails or gets too old is made up for in the next step."""


class SharePoint(StrictModel):
    """Shares of the pools at one point of the run; between points they change linearly."""

    at: float = Field(ge=0, le=1)
    """0 is the first step, 1 the last."""
    easy: float = Field(ge=0)
    """Share of prompts that are easy."""
    medium: float = Field(ge=0)
    """Share of those between easy and hard."""
    hard: float = Field(ge=0)
    """Share of those that are hard."""

    @model_validator(mode="after")
    def _adds_up(self) -> SharePoint:
        if abs(self.easy + self.medium + self.hard - 1) > 1e-6:
            raise ValueError(f"the shares at {self.at:g} add up to {self.easy + self.medium + self.hard:g}, not to 1")
        return self


class PoolsConfig(_CurriculumConfig):
    """Three pools by pass rate, mixed in shares that change over the run. The run's own groups move prompts between
    pools; what it has solved retires, and what it can't do rests."""

    kind: Literal["pools"] = "pools"
    """Pools by pass rate."""
    easy_from: float = Field(0.7, gt=0, le=1)
    """Pass rate from which a prompt is easy."""
    hard_to: float = Field(0.3, ge=0, lt=1)
    """Pass rate up to which it is hard."""
    shares: tuple[SharePoint, ...] = (
        SharePoint(at=0, easy=0.4, medium=0.5, hard=0.1),
        SharePoint(at=1, easy=0.1, medium=0.5, hard=0.4),
    )
    memory: float = Field(0.5, ge=0, le=1)
    """Weight of earlier attempts against those of a new group: 0 forgets them, 1 counts all attempts alike."""
    retire_from: float = Field(1.0, gt=0, le=1)
    """A group with this pass rate counts as solved."""
    retire_after: int = Field(2, ge=1)
    """Solved groups in a row, the profile counted as one, after which a prompt retires."""
    revisit_steps: int | None = Field(None, ge=1)
    """Steps after which a retired prompt comes back; null is never."""
    rest_to: float = Field(0.0, ge=0, lt=1)
    """A group with this pass rate or less counts as hopeless."""
    rest_after: int = Field(2, ge=1)
    """Hopeless groups in a row, the profile counted as one, after which a prompt rests."""
    rest_steps: int = Field(50, ge=1)
    """Steps for which it rests."""

    @field_validator("shares")
    @classmethod
    def _in_order(cls, shares: tuple[SharePoint, ...]) -> tuple[SharePoint, ...]:
        points = [point.at for point in shares]
        if not points or points != sorted(set(points)):
            raise ValueError(f"shares must be given at rising points of the run, at least one; got {points}")
        return shares

    @model_validator(mode="after")
    def _pools_differ(self) -> PoolsConfig:
        if self.hard_to >= self.easy_from:
            raise ValueError(f"hard_to {self.hard_to:g} must lie below easy_from {self.easy_from:g}")
        if self.rest_to >= self.retire_from:
            raise ValueError(f"rest_to {self.rest_to:g} must lie below retire_from {self.retire_from:g}")
        return self


class RefreshConfig(StrictModel):
    """A new profile, by the policy as it is then, once progress stalls; the schedule then begins anew.

    Progress is how far groups' pass rates lie above those of the profile, so that harder prompts are no step back.
    """

    window: int = Field(20, ge=1)
    """Steps over which progress is averaged."""
    patience: int = Field(40, ge=1)
    """Steps without a better average after which the run has stalled."""
    min_gain: float = Field(0.01, gt=0)
    """By how much an average must exceed the best one so far to be better."""
    attempts: int = Field(8, ge=1)
    """At each prompt."""
    prompts: int | None = Field(None, ge=1)
    """Prompts that are profiled anew, drawn by the seed; null is all."""
    most: int = Field(1, ge=1)
    """Refreshes in a run."""


class GaussianConfig(_CurriculumConfig):
    """The schedule of Nemotron 3 Nano (arXiv 2512.20848, section 3.2.2): fixed shares of domains in a batch, and within
    a domain prompts whose pass rates follow a Gaussian with a mean that falls linearly over the run.

    What the starting policy always solves is left out, as there. Means that their figure 6 shows go from about 0.7 to
    0.4; the width is not published.
    """

    kind: Literal["gaussian"]
    """A Gaussian over pass rates."""
    domains: CompositionConfig | None = None
    """Null is one domain."""
    start_mean: float = Field(0.7, ge=0, le=1)
    """Mean of the pass rates asked for at the first step."""
    end_mean: float = Field(0.4, ge=0, le=1)
    """The same at the last step."""
    width: float = Field(0.15, gt=0, le=1)
    """Standard deviation of the pass rates asked for."""
    solved_from: float = Field(1.0, gt=0, le=1)
    """Prompts with this pass rate in the profile are left out."""
    repeats: int = Field(4, ge=1)
    """How often a prompt may be asked for before others, further off in pass rate, have been."""
    refresh: RefreshConfig | None = None


CurriculumConfig = Annotated[PoolsConfig | GaussianConfig, Field(discriminator="kind")]
