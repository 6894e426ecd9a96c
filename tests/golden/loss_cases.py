"""Inputs of the golden vectors of losses."""

from __future__ import annotations

from typing import Any

Case = dict[str, Any]
NONE = {"level": "none", "mode": "truncate", "cap": 5.0}
TOKEN = {"level": "token", "mode": "truncate", "cap": 1.2}
CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def case(
    name: str,
    why: str,
    objective: str,
    config: Case,
    normaliser: float,
    moves: list[float],
    advantages: list[float],
    sequence: list[int],
    behaviour: list[float] | None = None,
    **extra: Any,
) -> Case:
    """`moves` are current - proximal and `behaviour` proximal - behaviour, added to fixed proximal logprobs."""
    proximal = [-1.0, -2.0, -0.5, -0.25, -3.0, -1.5][: len(moves)]
    off = behaviour or [0.0] * len(moves)
    inputs = {
        "behaviour": [round(p - b, 6) for p, b in zip(proximal, off, strict=True)],
        "proximal": proximal,
        "current": [round(p + m, 6) for p, m in zip(proximal, moves, strict=True)],
        "sequence": sequence,
        "advantages": advantages,
        **extra,
    }
    if "token_advantages" in extra:
        del inputs["advantages"]
    config = {"correction": NONE, **config}
    return {
        "name": name,
        "objective": objective,
        "derivation": [why],
        "config": config,
        "normaliser": normaliser,
        "inputs": inputs,
    }


MOVES = [0.1, 0.4, -0.2, -0.4, 0.05, 0.3]
SIX = [0, 0, 0, 1, 1, 2]
OFF = [0.3, -0.2, 0.1, 0.5, 0.0, -0.4]


def family(objective: str, config: Case, normaliser: float, why: str) -> list[Case]:
    """The cases that every token-level loss has."""
    signs = [1.5, -0.8, 0.6]
    return [
        case("on_policy", f"All ratios are 1. {why}", objective, config, normaliser, [0.0] * 6, signs, SIX),
        case("moved", f"Ratios on both sides of 1. {why}", objective, config, normaliser, MOVES, signs, SIX),
        case(
            "moved_other_signs",
            "The same with the signs of the advantages turned.",
            objective,
            config,
            normaliser,
            MOVES,
            [-value for value in signs],
            SIX,
        ),
        case(
            "decoupled",
            "Token weights proximal / behaviour, capped at 1.2, multiply each token's term.",
            objective,
            {**config, "correction": TOKEN},
            normaliser,
            MOVES,
            signs,
            SIX,
            OFF,
        ),
    ]


DR_GRPO = family("dr_grpo", CLIP, 30.0, "Sum over tokens by 3 sequences times a constant length of 10.")
DAPO = family("dapo", CLIP, 6.0, "Sum over tokens by 6 tokens.")
GSPO_TOKEN = [
    *family("gspo_token", CLIP, 3.0, "Each token has the value of its sequence's ratio."),
    case(
        "advantage_per_token",
        "What GSPO itself can't have: advantages that differ inside a sequence.",
        "gspo_token",
        CLIP,
        3.0,
        MOVES,
        [],
        SIX,
        token_advantages=[1.5, -0.5, 0.25, -0.8, 0.4, 0.6],
    ),
]
TAUS = {"tau_positive": 1.0, "tau_negative": 1.05}
SAPO = [
    *family("sapo", TAUS, 3.0, "f(r) = sigmoid(tau (r - 1)) 4 / tau."),
    case(
        "sharp_gates",
        "tau 5 and 10: far from 1 the gradient fades on both sides, whatever the sign.",
        "sapo",
        {"tau_positive": 5.0, "tau_negative": 10.0},
        3.0,
        [1.0, -1.0, 0.0, 1.0, -1.0, 0.0],
        [1.0, -1.0, -1.0],
        SIX,
    ),
]
CISPO = [
    *family("cispo", CLIP, 6.0, "Clipped ratios are constants: every token keeps a gradient."),
    case(
        "open_below",
        "clip_low null, as in the paper: small ratios stay small.",
        "cispo",
        {"clip_low": None, "clip_high": 0.28},
        6.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
    ),
]
DUAL = {**CLIP, "dual_clip": 3.0}
DUAL_CLIP = [
    case(
        "token_level",
        "Token 0 has ratio e^1.5 = 4.48 > 3 with A < 0: bounded at 3 A, no gradient; with A > 0 it is "
        "clipped above as ever.",
        "grpo",
        DUAL,
        2.0,
        [1.5, 0.2, -0.4, 1.5, 0.1],
        [-1.0, 2.0],
        [0, 0, 0, 1, 1],
    ),
    case(
        "sequence_level",
        "s = e^1.2 = 3.32 > 3 bounds the whole sequence.",
        "gspo",
        DUAL,
        2.0,
        [1.5, 0.9, 0.1, 0.2],
        [-1.0, -2.0],
        [0, 0, 1, 1],
    ),
    case("token_mean", "DAPO's average.", "dapo", DUAL, 5.0, [1.5, 0.2, -0.4, 1.5, 0.1], [-1.0, 2.0], [0, 0, 0, 1, 1]),
]
OPEN = {"clip_low": None, "clip_high": None}
CHOSEN = [False, True, False, True, False, False]
KL = {"control": "kl_cov", "coefficient": 1.0}
KL_COV = [
    case(
        "paper",
        "Without a clip, as published: tokens 1 and 3 pay |current - proximal|, one up and one down.",
        "dapo",
        {**OPEN, "covariance": KL},
        6.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        selected=CHOSEN,
    ),
    case(
        "on_clipped_grpo",
        "Token 1 is clipped and still pays.",
        "grpo",
        {**CLIP, "covariance": {**KL, "coefficient": 0.5}},
        3.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        selected=CHOSEN,
    ),
    case(
        "weighted",
        "The correction weight multiplies the penalty too.",
        "dapo",
        {**OPEN, "covariance": KL, "correction": TOKEN},
        6.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        OFF,
        selected=CHOSEN,
    ),
    case(
        "sapo",
        "Any token-level loss can have it.",
        "sapo",
        {**TAUS, "covariance": KL},
        3.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        selected=CHOSEN,
    ),
]
OUT = {"control": "clip_cov"}
CLIP_COV = [
    case(
        "token_mean",
        "Tokens 1 and 3 are out: no value, no gradient; the normaliser stays.",
        "dapo",
        {**CLIP, "covariance": OUT},
        6.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        selected=CHOSEN,
    ),
    case(
        "sequence_mean",
        "The same in GRPO's average.",
        "grpo",
        {**CLIP, "covariance": OUT},
        3.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        selected=CHOSEN,
    ),
    case(
        "gspo_token",
        "And in GSPO-token's: the sequence's ratio still counts all tokens.",
        "gspo_token",
        {**CLIP, "covariance": OUT},
        3.0,
        MOVES,
        [1.5, -0.8, 0.6],
        SIX,
        selected=CHOSEN,
    ),
]


def penalised(name: str, why: str, objective: str, estimator: str, gradient: str, **changes: Any) -> Case:
    penalty = {"coefficient": 0.1, "estimator": estimator, "gradient": gradient}
    config = {**(TAUS if objective == "sapo" else CLIP), "reference": penalty, **changes}
    off = OFF if changes else None
    reference = [-1.3, -1.2, -0.5, -1.0, -2.5, -1.6]
    return case(name, why, objective, config, 3.0, MOVES, [1.5, -0.8, 0.6], SIX, off, reference=reference)


REFERENCE_KL = [
    penalised("k3", "GRPO's: exp(-d) - 1 + d with d = current - reference.", "grpo", "k3", "estimator"),
    penalised("k2", "d^2 / 2: the gradient d is that of the divergence, on policy.", "grpo", "k2", "estimator"),
    penalised("k1_unbiased", "Value d, gradient d: k1 by itself would have gradient 1.", "grpo", "k1", "unbiased"),
    penalised("k3_unbiased", "Value of k3, gradient d.", "grpo", "k3", "unbiased"),
    penalised("gspo", "Mean over the tokens of a sequence, as its surrogate.", "gspo", "k3", "estimator"),
    penalised("sapo_weighted", "Weights multiply the penalty.", "sapo", "k3", "estimator", correction=TOKEN),
    penalised("gspo_weighted", "Weights multiply the penalty.", "gspo", "k2", "estimator", correction=TOKEN),
]


def variant(name: str, why: str, objective: str, **correction: Any) -> Case:
    config = {**(TAUS if objective == "sapo" else CLIP), "correction": correction}
    off = [0.6, -1.0, 0.2, 1.2, 0.9, -0.1]
    return case(name, why, objective, config, 3.0, MOVES, [1.5, -0.8, 0.6], SIX, off)


CORRECTIONS = [
    variant("tis_token", "min(w, 2).", "grpo", level="token", mode="truncate", cap=2.0),
    variant(
        "tis_sequence",
        "The product over a sequence's tokens, at most 2.",
        "grpo",
        level="product",
        mode="truncate",
        cap=2.0,
    ),
    variant("mis_token", "w up to 2, else 0.", "grpo", level="token", mode="mask", cap=2.0),
    variant(
        "mis_sequence",
        "The product up to 2, else 0: sequence 1 has e^2.1.",
        "grpo",
        level="product",
        mode="mask",
        cap=2.0,
    ),
    variant(
        "geometric_rejection",
        "Mean of log w inside [log 0.93, log 1.5]: sequence 0 (e^-0.067) stays.",
        "grpo",
        level="sequence",
        mode="mask",
        cap=1.5,
        floor=0.93,
    ),
    variant(
        "icepop",
        "w inside [0.5, 2], else 0: tokens 1, 3 and 4 are out.",
        "grpo",
        level="token",
        mode="icepop",
        cap=2.0,
        floor=0.5,
    ),
    variant(
        "icepop_gspo",
        "GSPO's surrogate times the mean weight.",
        "gspo",
        level="token",
        mode="icepop",
        cap=2.0,
        floor=0.5,
    ),
    variant("tis_sequence_gspo", "One weight for the sequence.", "gspo", level="product", mode="truncate", cap=2.0),
    variant("icepop_sapo", "On soft gates.", "sapo", level="token", mode="icepop", cap=2.0, floor=0.5),
]
FILES: dict[str, tuple[str, list[Case]]] = {
    "dr_grpo": ("arXiv 2503.20783", DR_GRPO),
    "dapo": ("arXiv 2503.14476, eq. 8", DAPO),
    "gspo_token": ("arXiv 2507.18071, eq. 13 and 14", GSPO_TOKEN),
    "sapo": ("arXiv 2511.20347", SAPO),
    "cispo": ("arXiv 2506.13585, eq. 4 and 5", CISPO),
    "dual_clip": ("arXiv 1912.09729", DUAL_CLIP),
    "kl_cov": ("arXiv 2505.22617, and its published code", KL_COV),
    "clip_cov": ("arXiv 2505.22617, and its published code", CLIP_COV),
    "reference_kl": ("joschu.net/blog/kl-approx.html; arXiv 2402.03300; arXiv 2510.01555", REFERENCE_KL),
    "corrections": (
        "TIS: fengyao.notion.site/off-policy-rl; MIS: richardli.xyz/rl-collapse; IcePop: arXiv 2510.18855; decoupled "
        "objective: arXiv 2110.00641 and 2505.24298",
        CORRECTIONS,
    ),
}
"""File -> source of the formula, cases."""
