"""How long a completion should be, as a number in [0, 1]. Pure and linear in the text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rewards.extract import after_reasoning, final_answer
from rewards.settings import Settings


class LengthConfig(Settings):
    """1 inside `low..high`, falling in a straight line to 0 over `fade_low` below and `fade_high` above.

    The soft cap of DAPO (arXiv 2503.14476, eq. 13) with L_max and L_cache is `high: L_max - L_cache`,
    `fade_high: L_cache`; theirs runs from 0 down to -1, this one from 1 down to 0.

    Example:
        LengthConfig(unit="words", high=200, fade_high=100)   # 250 words give 0.5, 300 or more give 0
    """

    of: Literal["completion", "reasoning", "answer"] = "completion"
    """The whole text; what stands before the end of the reasoning; or the final answer (none has length 0)."""
    unit: Literal["characters", "words", "tokens"] = "words"
    """Words are set apart by white space. `tokens` reads `completion_tokens` from the sample, for completions only."""
    low: int = Field(0, ge=0)
    high: int | None = Field(None, ge=0)
    """No upper bound where null."""
    fade_low: int = Field(0, ge=0)
    """0 is a step: one below `low` gives 0."""
    fade_high: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> LengthConfig:
        if self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; no length would be right")
        if self.high is None and not self.low:
            raise ValueError("neither low nor high is set, so every length would be right")
        if self.fade_low > self.low:
            raise ValueError(f"fade_low {self.fade_low} reaches below 0 from low {self.low}; set at most low")
        if self.unit == "tokens" and self.of != "completion":
            raise ValueError(f"tokens are counted for whole completions only, not for of: {self.of}")
        return self


def shaped(length: int, config: LengthConfig) -> float:
    """The value of a length, see `LengthConfig`."""
    if length < config.low:
        short = config.low - length
        return max(0.0, 1.0 - short / config.fade_low) if config.fade_low else 0.0
    if config.high is not None and length > config.high:
        over = length - config.high
        return max(0.0, 1.0 - over / config.fade_high) if config.fade_high else 0.0
    return 1.0


def measure(completion: str, config: LengthConfig, tokens: int | None = None) -> int | None:
    """The length that `config` speaks of; None for tokens that nobody counted."""
    if config.unit == "tokens":
        return tokens
    text = completion
    if config.of == "answer":
        text = final_answer(completion) or ""
    elif config.of == "reasoning":
        rest = after_reasoning(completion)
        text = completion if rest is None else completion[: len(completion) - len(rest)]
    return len(text) if config.unit == "characters" else len(text.split())
