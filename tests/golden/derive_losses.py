"""Derives the golden vectors of the losses: scalar arithmetic with 50 digits, one token at a time.

    python -m tests.golden.derive_losses     # rewrites the files next to it

Nothing of the project is imported. Gradients are closed forms, worked out by hand from each objective; each is checked
against a central difference of the loss with a step of 1e-20. Where an objective stops gradients, the difference keeps
the stopped factor at the unmoved logprobs.
"""

from __future__ import annotations

import json
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any

from tests.golden.loss_cases import FILES
from tests.golden.peers import PEERS

DIGITS = 50
Case = dict[str, Any]
Numbers = list[Decimal]
BY_SEQUENCE = ("grpo", "gspo", "gspo_token", "sapo")


def dec(values: list[Any]) -> Numbers:
    return [Decimal(str(value)) for value in values]


def exp(value: Decimal) -> Decimal:
    return value.exp()


def members(case: Case, token: int) -> list[int]:
    """Tokens of the same sequence."""
    sequence = case["inputs"]["sequence"]
    return [i for i in range(len(sequence)) if sequence[i] == sequence[token]]


def advantages(case: Case) -> Numbers:
    inputs = case["inputs"]
    if "token_advantages" in inputs:
        return dec(inputs["token_advantages"])
    return [dec(inputs["advantages"])[s] for s in inputs["sequence"]]


def correction(case: Case) -> tuple[Numbers, list[bool]]:
    """Weights proximal / behaviour, and which are out of bounds."""
    inputs, config = case["inputs"], case["config"]["correction"]
    logs = [p - b for p, b in zip(dec(inputs["proximal"]), dec(inputs["behaviour"]), strict=True)]
    if config["level"] == "none":
        return [Decimal(1)] * len(logs), [False] * len(logs)
    weights, outside = [], []
    for t in range(len(logs)):
        group = members(case, t)
        total = sum((logs[i] for i in group), Decimal(0))
        log = {"token": logs[t], "sequence": total / len(group), "product": total}[config["level"]]
        weight, cap = exp(log), Decimal(str(config["cap"]))
        out = weight > cap
        if config["mode"] == "truncate":
            weight = min(weight, cap)
        else:
            out = out or (config.get("floor") is not None and weight < Decimal(str(config["floor"])))
            weight = Decimal(0) if out else weight
        weights.append(weight)
        outside.append(out)
    return weights, outside


def clip(ratio: Decimal, config: Case) -> Decimal:
    if config.get("clip_low") is not None:
        ratio = max(ratio, 1 - Decimal(str(config["clip_low"])))
    if config.get("clip_high") is not None:
        ratio = min(ratio, 1 + Decimal(str(config["clip_high"])))
    return ratio


def ratio_of(case: Case, current: Numbers, frozen: Numbers, t: int) -> Decimal:
    proximal, name = dec(case["inputs"]["proximal"]), case["objective"]
    if name not in ("gspo", "gspo_token"):
        return exp(current[t] - proximal[t])
    group = members(case, t)
    if name == "gspo":
        return exp(sum((current[i] - proximal[i] for i in group), Decimal(0)) / len(group))
    return exp(sum((frozen[i] - proximal[i] for i in group), Decimal(0)) / len(group) + current[t] - frozen[t])


def sigmoid(value: Decimal) -> Decimal:
    return 1 / (1 + exp(-value))


def tau_of(case: Case, advantage: Decimal) -> Decimal:
    return Decimal(str(case["config"]["tau_positive" if advantage > 0 else "tau_negative"]))


def surrogate(case: Case, current: Numbers, frozen: Numbers, t: int) -> tuple[Decimal, bool, bool]:
    """Objective of a token, and whether it was clipped, or dual clipped."""
    config, a = case["config"], advantages(case)[t]
    ratio = ratio_of(case, current, frozen, t)
    if case["objective"] == "sapo":
        tau = tau_of(case, a)
        return sigmoid(tau * (ratio - 1)) * 4 / tau * a, False, False
    if case["objective"] == "cispo":
        stopped = ratio_of(case, frozen, frozen, t)
        return clip(stopped, config) * a * current[t], clip(stopped, config) != stopped, False
    bounded = clip(ratio, config)
    value, clipped, dual = min(ratio * a, bounded * a), bounded * a < ratio * a, False
    if config.get("dual_clip") is not None and a < 0 and value < Decimal(str(config["dual_clip"])) * a:
        value, dual = Decimal(str(config["dual_clip"])) * a, True
    return value, clipped, dual


def kl(config: Case, current: Decimal, frozen: Decimal, reference: Decimal) -> Decimal:
    d, stopped = current - reference, frozen - reference
    if config["gradient"] == "unbiased":
        value = {"k1": stopped, "k2": stopped**2 / 2, "k3": exp(-stopped) - 1 + stopped}[config["estimator"]]
        return value + d**2 / 2 - stopped**2 / 2
    return {"k1": d, "k2": d**2 / 2, "k3": exp(-d) - 1 + d}[config["estimator"]]


def loss_of(case: Case, current: Numbers, frozen: Numbers) -> Decimal:
    inputs, config = case["inputs"], case["config"]
    weights, _ = correction(case)
    control, penalty = config.get("covariance"), config.get("reference")
    total = Decimal(0)
    for t in range(len(current)):
        value = surrogate(case, current, frozen, t)[0]
        if control and inputs["selected"][t]:
            if control["control"] == "clip_cov":
                value = Decimal(0)
            else:
                value -= Decimal(str(control["coefficient"])) * abs(current[t] - dec(inputs["proximal"])[t])
        if penalty:
            value -= Decimal(str(penalty["coefficient"])) * kl(
                penalty, current[t], frozen[t], dec(inputs["reference"])[t]
            )
        share = len(members(case, t)) if case["objective"] in BY_SEQUENCE else 1
        total += weights[t] * value / share
    return -total / Decimal(str(case["normaliser"]))


def slope(case: Case, t: int) -> Decimal:
    """d loss / d current[t] in closed form."""
    inputs, config, name = case["inputs"], case["config"], case["objective"]
    current, proximal = dec(inputs["current"]), dec(inputs["proximal"])
    a, weights = advantages(case)[t], correction(case)[0]
    ratio, group = ratio_of(case, current, current, t), members(case, t)
    _, clipped, dual = surrogate(case, current, current, t)
    control, penalty = config.get("covariance"), config.get("reference")
    if name == "sapo":
        gate = sigmoid(tau_of(case, a) * (ratio - 1))
        rise = 4 * gate * (1 - gate) * ratio * a
    elif name == "cispo":
        rise = clip(ratio, config) * a
    else:
        rise = Decimal(0) if clipped or dual else ratio * a
    weight = weights[t]
    if name == "gspo":  # every token moves the ratio of the whole sequence by 1 / length
        rise, weight = rise * sum((weights[i] for i in group), Decimal(0)) / len(group), Decimal(1)
    if control and inputs["selected"][t] and control["control"] == "clip_cov":
        rise = Decimal(0)
    rise *= weight
    if control and inputs["selected"][t] and control["control"] == "kl_cov":
        moved = current[t] - proximal[t]
        rise -= weights[t] * Decimal(str(control["coefficient"])) * (moved > 0) - weights[t] * Decimal(
            str(control["coefficient"])
        ) * (moved < 0)
    if penalty:
        d = current[t] - dec(inputs["reference"])[t]
        pull = 1 - exp(-d) if (penalty["estimator"], penalty["gradient"]) == ("k3", "estimator") else d
        rise -= weights[t] * Decimal(str(penalty["coefficient"])) * pull
    share = len(group) if name in BY_SEQUENCE else 1
    return -rise / share / Decimal(str(case["normaliser"]))


def solve(case: Case) -> Case:
    """The case with `derivation` and `expected`."""
    inputs, config = case["inputs"], case["config"]
    current, proximal, behaviour = (dec(inputs[name]) for name in ("current", "proximal", "behaviour"))
    weights, outside = correction(case)
    states = [surrogate(case, current, current, t) for t in range(len(current))]
    gradient = [slope(case, t) for t in range(len(current))]
    step = Decimal("1e-20")
    for t, closed in enumerate(gradient):
        up, down = (current[:t] + [current[t] + s] + current[t + 1 :] for s in (step, -step))
        difference = (loss_of(case, up, current) - loss_of(case, down, current)) / (2 * step)
        assert abs(difference - closed) < Decimal("1e-15"), (case["name"], t, difference, closed)
    back = [p - b for p, b in zip(proximal, behaviour, strict=True)]
    move = [c - p for c, p in zip(current, proximal, strict=True)]
    sums: dict[str, Decimal | int] = {
        "tokens": len(current),
        "clipped": sum(state[1] for state in states),
        "weights": sum(weights, Decimal(0)),
        "capped": sum(outside),
        "kl_behaviour": sum((exp(d) - 1 - d for d in back), Decimal(0)),
        "kl_update": sum((exp(d) - 1 - d for d in move), Decimal(0)),
    }
    if config.get("dual_clip") is not None:
        sums["dual_clipped"] = sum(state[2] for state in states)
    if config.get("covariance"):
        sums["selected"] = sum(inputs["selected"])
    if config.get("reference"):
        pairs = zip(current, dec(inputs["reference"]), strict=True)
        sums["kl_reference"] = sum((kl(config["reference"], c, c, r) for c, r in pairs), Decimal(0))
    lines = [
        f"Token {t}, sequence {inputs['sequence'][t]}, A = {short(advantages(case)[t])}: ratio "
        f"{short(ratio_of(case, current, current, t))}, objective {short(value)}"
        f"{' (clipped)' if clipped else ''}{' (dual clip)' if dual else ''}, weight {short(weights[t])}, "
        f"gradient {short(gradient[t])}."
        for t, (value, clipped, dual) in enumerate(states)
    ]
    expected = {
        "loss": float(loss_of(case, current, current)),
        "gradient": [float(value) for value in gradient],
        "sums": {name: value if isinstance(value, int) else float(value) for name, value in sums.items()},
    }
    return {**case, "derivation": [*case["derivation"], *lines], "expected": expected}


def short(value: Decimal) -> str:
    return f"{float(value):.10g}"


def contents() -> dict[str, Case]:
    """File name -> content."""
    with localcontext(Context(prec=DIGITS)):  # the precision is a setting of the thread, not of this file
        return {
            name: {"source": source, "peers": PEERS[name], "tolerance": 1e-06, "cases": [solve(case) for case in cases]}
            for name, (source, cases) in FILES.items()
        }


if __name__ == "__main__":
    for file, content in contents().items():
        target = Path(__file__).parent / f"{file}.json"
        target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
