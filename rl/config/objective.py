"""What the learner optimises: policy loss, off-policy correction, entropy control, advantages and filters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from rl.config.base import StrictModel

ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""`module:function` of user code, imported when the run starts."""


def _name_or_path(value: Any) -> str:
    """Whether a value means one of the known names or an import path: an error then speaks of that alone."""
    return "import-path" if isinstance(value, str) and ":" in value else "name"


LossName = Annotated[
    Annotated[Literal["gspo", "gspo_token", "grpo", "dr_grpo", "dapo", "sapo", "cispo"], Tag("name")]
    | Annotated[ImportPath, Tag("import-path")],
    Discriminator(_name_or_path),
]
GroupName = Annotated[
    Annotated[Literal["mean_std", "mean", "rloo"], Tag("name")] | Annotated[ImportPath, Tag("import-path")],
    Discriminator(_name_or_path),
]
Normaliser = Literal["sequences", "tokens", "constant"]


class CorrectionConfig(StrictModel):
    """How much a token counts that another policy version sampled: weight proximal / behaviour.

    | known as | level | mode |
    |---|---|---|
    | decoupled objective with capped weights (AReaL), token TIS | token | truncate |
    | sequence TIS | product | truncate |
    | token MIS | token | mask |
    | sequence MIS | product | mask |
    | geometric rejection sampling | sequence | mask, with `floor` |
    | IcePop | token | icepop, with `floor` |
    | PPO on the behaviour's ratio | none | - , with `proximal: behaviour` |
    """

    level: Literal["token", "sequence", "product", "none"] = "token"
    """`sequence` takes the geometric mean over a response's tokens, `product` their product; `none` switches the weight
    off."""
    mode: Literal["truncate", "mask", "icepop"] = "truncate"
    """Above the cap: `truncate` to it, or `mask` the token (or sequence) out; `icepop` also masks below `floor`."""
    cap: float = Field(5.0, gt=0)
    """Largest weight; what is above is treated by `mode`."""
    floor: float | None = Field(None, gt=0)
    """Weights below it are masked out (`mask` and `icepop`)."""
    proximal: Literal["recompute", "interpolate", "behaviour"] = "recompute"
    """Logprobs of the policy at the start of the step: `recompute` them with a forward pass (the first update needs
    none: there the current policy is the proximal one); `interpolate` between behaviour and current by versions, which
    saves the pass of the later updates; or take the `behaviour` itself."""

    @model_validator(mode="after")
    def _possible(self) -> CorrectionConfig:
        default = CorrectionConfig.model_fields
        if self.level == "none" and (
            self.mode != "truncate" or self.floor is not None or self.cap != default["cap"].default
        ):
            raise ValueError("level none switches the weight off, so mode, cap and floor have no part; remove them")
        if self.proximal == "behaviour" and self.level != "none":
            raise ValueError(
                f"with proximal: behaviour the weight proximal / behaviour is always 1 and level {self.level} corrects "
                "nothing; set level: none, or proximal: recompute"
            )
        if self.mode == "truncate" and self.floor is not None:
            raise ValueError(
                f"mode truncate only caps weights; floor {self.floor} has no part: remove it or set mode: mask"
            )
        if self.mode == "icepop" and (self.level != "token" or self.floor is None):
            raise ValueError(
                "icepop keeps the tokens whose weight lies in [floor, cap]; set level: token and a floor "
                "(0.5 with cap 5.0 in the original)"
            )
        if self.floor is not None and self.floor >= self.cap:
            raise ValueError(f"floor {self.floor} is not below cap {self.cap}, so every token would be masked out")
        return self


class CovarianceConfig(StrictModel):
    """Entropy control on the tokens whose covariance of logprob and advantage is high (arXiv 2505.22617).

    Tokens are chosen over the whole update, from proximal logprobs, before its first micro-batch.
    """

    control: Literal["kl_cov", "clip_cov"]
    """`kl_cov` adds `coefficient * |current - proximal|` to the loss of the chosen tokens; `clip_cov` drops them."""
    share: float = Field(2e-4, gt=0, le=1)
    """Share of the update's tokens that are chosen, at least one: the highest covariances (`kl_cov`), or a random draw
    from those between `low` and `high` (`clip_cov`)."""
    coefficient: float = Field(1.0, gt=0)
    """Weight of `kl_cov`'s penalty."""
    low: float = Field(1.0, ge=0)
    """Covariances from here on may be drawn (`clip_cov`)."""
    high: float = Field(5.0, gt=0)
    """Covariances up to here may be drawn (`clip_cov`)."""

    @model_validator(mode="after")
    def _possible(self) -> CovarianceConfig:
        _refuse_foreign(self, "control", {"coefficient": ("kl_cov",), "low": ("clip_cov",), "high": ("clip_cov",)})
        if self.low >= self.high:
            raise ValueError(f"no covariance lies between low {self.low} and high {self.high}; set low < high")
        return self


class ReferenceKLConfig(StrictModel):
    """A penalty on KL(current || reference); the learner keeps the reference as a second, frozen model."""

    coefficient: float = Field(gt=0)
    """Weight of the penalty in the loss."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """Per token, with d = current - reference: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d."""
    gradient: Literal["estimator", "unbiased"] = "estimator"
    """Differentiate the `estimator`, or take d times the gradient of the logprob, whose mean over the policy is the
    gradient of the KL divergence (arXiv 2510.01555)."""
    model: str | None = None
    """Folder of the reference; null is the model that the run starts from."""

    @model_validator(mode="after")
    def _pulls(self) -> ReferenceKLConfig:
        if self.estimator == "k1" and self.gradient == "estimator":
            raise ValueError(
                "the gradient of k1 is zero on average, so it would hold nothing back; set gradient: unbiased, or "
                "estimator: k2 or k3"
            )
        return self


_CLIPPED = ("gspo", "gspo_token", "grpo", "dr_grpo", "dapo")
_LOSS_FIELDS: dict[str, tuple[str, ...]] = {
    "clip_low": (*_CLIPPED, "cispo"),
    "clip_high": (*_CLIPPED, "cispo"),
    "dual_clip": _CLIPPED,
    "tau_positive": ("sapo",),
    "tau_negative": ("sapo",),
    "length_constant": ("dr_grpo",),
    "normaliser": (),
    "options": (),
}
"""Fields that not every loss reads, and the losses that do; user losses may read all."""


class LossConfig(StrictModel):
    """The policy loss."""

    name: LossName = "gspo"
    """A built-in loss, or `module:function` with the signature of `rl.algo.losses.Loss`."""
    clip_low: float | None = Field(0.2, gt=0, lt=1)
    """The ratio is clipped at 1 - clip_low; null leaves that side open."""
    clip_high: float | None = Field(0.28, gt=0)
    """The ratio is clipped at 1 + clip_high; null leaves that side open."""
    dual_clip: float | None = Field(None, gt=1)
    """Ratio beyond which a token with negative advantage is pushed down no further (arXiv 1912.09729)."""
    tau_positive: float = Field(1.0, gt=0)
    """SAPO's gate for positive advantages: the larger, the narrower."""
    tau_negative: float = Field(1.05, gt=0)
    """The same for negative advantages."""
    length_constant: int | None = Field(None, ge=1)
    """Dr. GRPO's tokens per sequence; null is rollout.sampling.max_tokens."""
    normaliser: Normaliser | None = None
    """What a user loss is divided by; built-in losses know theirs."""
    options: dict[str, bool | int | float | str] = {}
    """Parameters of a user loss."""
    correction: CorrectionConfig = CorrectionConfig()
    covariance: CovarianceConfig | None = None
    reference: ReferenceKLConfig | None = None

    @property
    def is_user_loss(self) -> bool:
        return ":" in self.name

    @model_validator(mode="after")
    def _possible(self) -> LossConfig:
        if self.is_user_loss:
            if self.normaliser is None:
                raise ValueError(
                    f"the loss {self.name} is user code; set normaliser to what its sum is divided by: sequences, "
                    "tokens, or constant (sequences times length_constant)"
                )
        else:
            _refuse_foreign(self, "name", _LOSS_FIELDS)
        if self.covariance is not None and self.name == "gspo":
            raise ValueError("covariance chooses tokens, and gspo has one ratio for a sequence; set name: gspo_token")
        if self.covariance is not None and self.correction.proximal == "interpolate":
            raise ValueError(
                "covariance needs proximal logprobs before the micro-batches, and interpolated ones exist only inside "
                "them; set correction.proximal: recompute or behaviour"
            )
        return self


def _refuse_foreign(config: StrictModel, selector: str, readers: dict[str, tuple[str, ...]]) -> None:
    """Raise for a field that was changed and that the selected choice does not read."""
    choice = getattr(config, selector)
    for field, users in readers.items():
        value = getattr(config, field)
        if choice not in users and value != type(config).model_fields[field].default:
            read_by = f"it belongs to {', '.join(users)}" if users else "it belongs to user losses (module:function)"
            raise ValueError(f"{field} {value!r} has no part in {selector} {choice}: {read_by}; remove it")


class AdvantageConfig(StrictModel):
    """From rewards to advantages: (reward + bias) * scale, then within the group, then over the batch.

    Every built-in `group` subtracts a mean, so `bias` cancels; it is here because published recipes state it.
    `scale` matters for `mean` and `rloo` without `batch_normalise`.
    """

    bias: float = -0.5
    """Added to every reward."""
    scale: float = 10.0
    """Multiplies rewards after `bias`."""
    group: GroupName = "mean_std"
    """`rloo` subtracts the mean of the other rewards; or `module:function` as `rl.algo.advantages.GroupFunction`."""
    batch_normalise: bool = True
    """Subtract the batch's mean from the advantages and divide by their standard deviation."""


class TextChecksConfig(StrictModel):
    """When a completion is called garbled or repeating; see `rl.algo.text_checks`."""

    bad_characters: float = Field(0.05, gt=0, le=1)
    """Share of replacement, control, private and unassigned characters above which a text is garbled."""
    surprise_nats: float = Field(8.0, gt=0)
    """Mean -logprob of `surprise_window` sampled tokens in a row above which a text is garbled."""
    surprise_window: int = Field(64, ge=1)
    """Tokens in a row over which `surprise_nats` is averaged."""
    repeat_times: int = Field(5, ge=2)
    """How often a passage must stand in a row to be called repeating."""
    repeat_tokens: int = Field(256, ge=16)
    """Shortest run of tokens that is called repeating."""
    repeat_share: float = Field(0.95, gt=0, le=1)
    """Share of such a run that must have stood just before."""


class OverlongConfig(StrictModel):
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), added to rewards before advantages."""

    buffer: int = Field(ge=1)
    """Tokens before rollout.sampling.max_tokens over which the punishment grows from 0 to `penalty`."""
    penalty: float = Field(1.0, gt=0)
    """Taken off the reward of a completion of full length."""


Screening = Literal["off", "count", "mask"]


class FilterConfig(StrictModel):
    """Which completions and groups are not trained on. `count` reports only; `mask` takes a completion out of its
    group's statistics and of training. A group without enough rewards after masking is filtered."""

    equal_rewards: Literal["drop", "keep"] = "drop"
    """Groups whose rewards are all equal: every advantage would be zero. They are called all right or all wrong by
    their outcomes, see `rl.records.Grades`."""
    equal_outcomes: Literal["drop", "keep"] = "keep"
    """Groups that are all right or all wrong although a mixture rewards their completions differently; what `drop`
    leaves is learned for the outcome's sake (the dynamic sampling of DAPO, by accuracy)."""
    truncated: Screening = "off"
    """Completions that ran into `rollout.sampling.max_tokens`."""
    garbled: Screening = "off"
    """Completions with broken characters or very unlikely tokens, see `checks`."""
    repeating: Screening = "off"
    """Completions that say the same over and over, see `checks`."""
    checks: TextChecksConfig = TextChecksConfig()
    overlong: OverlongConfig | None = None

    @property
    def reads_text(self) -> bool:
        """Whether rollout workers must look at tokens and text."""
        return self.garbled != "off" or self.repeating != "off"
