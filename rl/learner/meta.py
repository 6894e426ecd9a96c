"""Filling a model that was sharded on the meta device: parameters, buffers and ties, from rank 0."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from rl.errors import ConfigError
from rl.models.policy import Policy


def materialise(policy: Policy, source: Policy | None, device: torch.device, parameters_on: torch.device) -> None:
    """Give every shard and buffer of `policy` the numbers of `source`, which rank 0 has. Collective.

    A rank holds its shards and one whole tensor at a time. Buffers that no checkpoint holds, such as rotary
    frequencies, come from `source` too.

    Raises:
        ConfigError: the model keeps a tensor where neither parameters nor buffers are found.
    """
    ties = _ties(policy)
    policy.to_empty(device=parameters_on)
    for (module, name), *others in ties:
        for other, other_name in others:
            other._parameters[other_name] = module._parameters[name]
    state = source.state_dict() if source is not None else {}
    set_model_state_dict(policy, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    _fill_buffers(policy, source, device)
    _check_complete(policy)


def _ties(policy: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """The places of every parameter that stands in several, which moving a model off the meta device would sever."""
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in policy.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(parameter, []).append((module, name))
    return [found for found in places.values() if len(found) > 1]


def _fill_buffers(policy: nn.Module, source: nn.Module | None, device: torch.device) -> None:
    values = dict(source.named_buffers()) if source is not None else {}
    for prefix, module in policy.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is None:
                continue
            key = f"{prefix}.{name}" if prefix else name
            value = values[key].to(device) if source is not None else torch.empty_like(buffer, device=device)
            dist.broadcast(value, src=0)
            module._buffers[name] = value


def _check_complete(policy: nn.Module) -> None:
    for prefix, module in policy.named_modules():
        held = {**vars(module), **module._parameters, **module._buffers}
        for name, value in held.items():
            if isinstance(value, torch.Tensor) and value.is_meta:
                raise ConfigError(
                    f"{prefix}.{name} of this model is neither parameter nor buffer and has no numbers when it is "
                    "built on the meta device; set learner.fsdp.meta_init: false"
                )
