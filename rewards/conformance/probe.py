"""A verifier that looks over another's shoulder: what a call did to its sample and to the memory of its process."""

from __future__ import annotations

import copy
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards import plugins
from rewards.base import RewardResult

NAME = "conformance-probe"
REFERENCE = "rewards.conformance.probe:verify"


def verify(
    completion: str, answer: str, *, prompt: str | None = None, sample: Mapping[str, Any] | None = None
) -> RewardResult:
    """Call the verifier that `sample["reference"]` names with `sample["sample"]`.

    Components: `mutated` is 1 where the verifier has changed the sample it was given; `memory_mb` is the resident
    memory of the process afterwards. The value says nothing.
    """
    assert sample is not None
    given = copy.deepcopy(sample["sample"])
    plugins.load(sample["reference"])(completion, answer, prompt=prompt, sample=given)
    mutated = float(given != sample["sample"])
    return RewardResult(0.0, "ok", {"mutated": mutated, "memory_mb": resident_mb()})


def resident_mb() -> float:
    """Resident memory of this process in MiB; on systems without /proc, its highest so far."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
