"""The framework-neutral vectors of tests/golden, gradients included, and finite differences of the losses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rl.algo.advantages import batch_normalise, group_advantages
from rl.algo.losses import LOSSES, LossInputs
from rl.algo.passk import pass_at_k
from rl.config.objective import AdvantageConfig, LossConfig

GOLDEN = Path(__file__).parents[1] / "golden"
SUMS = {
    "tokens": "tokens",
    "clipped": "clip/fraction",
    "weights": "behaviour_weight/mean",
    "capped": "behaviour_weight/capped_fraction",
    "kl_behaviour": "kl/behaviour",
    "kl_update": "kl/update",
}


def vectors(*files: str) -> list[Any]:
    """(file content, case) of each case, named after file and case."""
    loaded = {file: json.loads((GOLDEN / f"{file}.json").read_text()) for file in files}
    return [
        pytest.param(content, case, id=f"{file}-{case['name']}")
        for file, content in loaded.items()
        for case in content["cases"]
    ]


def loss_inputs(case: dict[str, Any]) -> LossInputs:
    inputs = case["inputs"]
    sequence = torch.tensor(inputs["sequence"])
    tokens = {name: torch.tensor(inputs[name], dtype=torch.float64) for name in ("current", "proximal", "behaviour")}
    advantages = torch.tensor(inputs["advantages"], dtype=torch.float64)
    return LossInputs(**tokens, advantages=advantages[sequence], sequence=sequence, sequences=len(advantages))


def close(got: Any, wanted: Any, tolerance: float) -> None:
    assert got == pytest.approx(wanted, rel=0, abs=tolerance)


@pytest.mark.parametrize(("content", "case"), vectors("gspo", "grpo"))
def test_losses(content, case):
    inputs = loss_inputs(case)
    inputs.current.requires_grad_()
    config = LossConfig.model_validate({"name": content["objective"], **case["config"]})
    output = LOSSES[content["objective"]](inputs, config, case["normaliser"])
    output.loss.backward()
    expected, tolerance = case["expected"], content["tolerance"]
    close(output.loss.item(), expected["loss"], tolerance)
    close(inputs.current.grad.tolist(), expected["gradient"], tolerance)
    close({name: output.sums[key] for name, key in SUMS.items()}, expected["sums"], tolerance)


@pytest.mark.parametrize("objective", ["gspo", "grpo"])
def test_gradients_are_the_finite_differences_of_the_loss(objective):
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> torch.Tensor:
        return scale * torch.randn(12, generator=generator, dtype=torch.float64)

    proximal = draw(1.0) - 2
    sequence = torch.tensor([0] * 5 + [1] * 3 + [2] * 4)
    advantages = torch.tensor([1.5, -0.7, 0.4], dtype=torch.float64)[sequence]
    current = (proximal + draw(0.3)).requires_grad_()
    inputs = LossInputs(current, proximal, proximal + draw(0.5), advantages, sequence, 3)
    config = LossConfig(name=objective)
    LOSSES[objective](inputs, config, 3.0).loss.backward()

    def loss_at(token: int, shift: float) -> float:
        moved = current.detach().clone()
        moved[token] += shift
        return LOSSES[objective](replace(inputs, current=moved), config, 3.0).loss.item()

    step = 1e-6
    slopes = [(loss_at(token, step) - loss_at(token, -step)) / (2 * step) for token in range(12)]
    assert current.grad is not None
    close(current.grad.tolist(), slopes, 1e-8)
    assert any(slopes), "the case must not be clipped everywhere"


def test_no_gradient_flows_through_correction_weights():
    case = next(param.values[1] for param in vectors("gspo") if param.values[1]["name"] == "decoupled_and_moved")
    inputs = loss_inputs(case)
    for tensor in (inputs.current, inputs.proximal, inputs.behaviour):
        tensor.requires_grad_()
    LOSSES["gspo"](inputs, LossConfig.model_validate({"name": "gspo", **case["config"]}), 2.0).loss.backward()
    # proximal enters through the ratio only, with the opposite sign of current.
    close(inputs.proximal.grad.tolist(), [-g for g in case["expected"]["gradient"]], 1e-6)
    assert inputs.behaviour.grad is None


@pytest.mark.parametrize(("content", "case"), vectors("group_advantages"))
def test_group_advantages(content, case):
    got = group_advantages(case["rewards"], AdvantageConfig.model_validate(case["config"]))
    assert [value is None for value in got] == [value is None for value in case["expected"]]
    close([v for v in got if v is not None], [v for v in case["expected"] if v is not None], content["tolerance"])


@pytest.mark.parametrize(("content", "case"), vectors("batch_normalisation"))
def test_batch_normalisation(content, case):
    for got, expected in zip(batch_normalise(case["groups"]), case["expected"], strict=True):
        assert [value is None for value in got] == [value is None for value in expected]
        close([v for v in got if v is not None], [v for v in expected if v is not None], content["tolerance"])


@pytest.mark.parametrize(("content", "case"), vectors("pass_at_k"))
def test_pass_at_k(content, case):
    close(pass_at_k(case["n"], case["correct"], case["k"]), case["expected"], content["tolerance"])


def test_every_case_shows_its_steps():
    files = sorted(path.stem for path in GOLDEN.glob("*.json"))
    assert files == ["batch_normalisation", "group_advantages", "grpo", "gspo", "pass_at_k"]
    assert all(case["derivation"] for param in vectors(*files) for case in [param.values[1]])
