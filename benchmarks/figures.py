"""The README's figures, as PNG files, from a finished pipeline folder.

    python benchmarks/figures.py runs/quickstart docs/images

Draws what the HTML report draws. The last line printed is JSON: the files written.
"""

from __future__ import annotations

import argparse
import base64
import json
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from rl.metrics import files, plots, plots_pipeline, plots_timeline
from rl.metrics.style import png_bytes
from rl.metrics.summary import before_and_after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures(args.pipeline).items():
        if figure is not None:
            path = args.out / f"{name}.png"
            path.write_bytes(png_bytes(figure))
            written.append(str(path))
    print(json.dumps({"figures": written}))


def figures(pipeline: Path) -> dict[str, Figure | None]:
    """By file name; None where the folder lacks the data."""
    run = pipeline / files.RL_FOLDER
    rows = files.read_metrics(run).rows
    evals = files.read_evals(run)
    before, after = before_and_after(evals)
    stages = {folder.name: files.read_metrics(folder).rows for folder in sorted(pipeline.glob(files.SFT_GLOB))}
    candidates = files.read_candidates(pipeline / files.CURATE_FOLDER / files.CANDIDATES)
    return {
        "reward": plots.reward(rows),
        "accuracy": plots.accuracy(rows, evals),
        "staleness": plots.staleness(rows),
        "probe": plots.probe_delta(rows),
        "timeline": plots_timeline.timeline(files.read_timeline(run).rows),
        "sft": plots_pipeline.sft_loss(stages),
        "curation": plots_pipeline.curation(candidates),
        "before_after": plots_pipeline.before_after(before, after) if before and after else None,
        "tasks": task_sheet(after.examples) if after else None,
    }


def task_sheet(examples: tuple[files.EvalExample, ...]) -> Figure:
    """One evaluation sample per task: picture, question and accepted answer."""
    from io import BytesIO

    from PIL import Image

    first = {example.source: example for example in reversed(examples)}
    shown = sorted(first.values(), key=lambda example: (not example.images, example.source))
    figure = Figure(figsize=(11, 2.9), layout="constrained")
    for place, example in enumerate(shown):
        ax = figure.add_subplot(1, len(shown), place + 1)
        ax.set_axis_off()
        if example.images:
            ax.imshow(Image.open(BytesIO(base64.b64decode(example.images[0]))), interpolation="nearest")
        question = example.problem.replace("<image>", "")
        ax.set_title(f"{example.source}\n{textwrap.fill(question, 26)}", fontsize=7)
        ax.set_box_aspect(1)
        ax.text(0.5, -0.05, example.answers[0], fontsize=7, ha="center", va="top", transform=ax.transAxes)
    return figure


if __name__ == "__main__":
    main()
