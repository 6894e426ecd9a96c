"""What staleness costs in quality: S = 0, 2, 8 on the quickstart's task, with and without the decoupled objective.

Without it the ratio that the loss clips is that of the current policy to the one that sampled; with it, to the policy
at the start of the step, and a capped weight corrects for the rest (`algo.loss.correction`). At S = 0 with one update a
step the two are the same, so that is one arm. All arms train equally many groups.

    python benchmarks/staleness.py [--seeds 0 1 2] [--out runs/staleness] [--figure FILE | --add FILE] [key=value ...]

Starts from the folders of `benchmarks/seeds.py` or makes them. The last line printed is JSON.
"""

from __future__ import annotations

import arms

BEHAVIOUR = ("algo.loss.correction.proximal=behaviour", "algo.loss.correction.level=none")
ARMS: dict[str, tuple[str, ...]] = {
    "s0": ("algo.max_staleness=0",),
    "s2": ("algo.max_staleness=2",),
    "s8": ("algo.max_staleness=8",),
    "s2-coupled": ("algo.max_staleness=2", *BEHAVIOUR),
    "s8-coupled": ("algo.max_staleness=8", *BEHAVIOUR),
}
LABELS = {
    "s0": "S=0",
    "s2": "S=2",
    "s8": "S=8",
    "s2-coupled": "S=2, not decoupled",
    "s8-coupled": "S=8, not decoupled",
}


def main() -> None:
    args = arms.arguments(__doc__, "staleness", steps=120)
    curves = {"reward/mean": "mean reward", "staleness/mean": "mean staleness of a batch"}
    arms.compare("staleness", args, LABELS, lambda arm, _: ARMS[arm], curves, f"{args.steps} steps")


if __name__ == "__main__":
    main()
