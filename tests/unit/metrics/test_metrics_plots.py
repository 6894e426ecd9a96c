from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rl.metrics import files, plots, plots_pipeline, plots_timeline, style
from rl.metrics.report import gather


def _labels(figure: Any) -> list[str]:
    texts = [ax.get_xlabel() for ax in figure.axes] + [ax.get_ylabel() for ax in figure.axes]
    return texts + [text.get_text() for ax in figure.axes for text in ax.texts]


def test_every_plot_is_drawn_with_labelled_axes(pipeline_template: Path) -> None:
    material = gather(pipeline_template)
    rows = material.metrics
    assert material.candidates is not None
    figures = {
        "reward": plots.reward(rows),
        "accuracy": plots.accuracy(rows, material.evals),
        "length": plots.response_length(rows),
        "entropy": plots.entropy(rows),
        "kl": plots.kl_and_clip(rows),
        "staleness": plots.staleness(rows),
        "probe": plots.probe_delta(rows),
        "grad": plots.grad_norm_and_lr(rows),
        "fates": plots.fates_over_time(material.fates),
        "timeline": plots_timeline.timeline(material.timeline),
        "sft": plots_pipeline.sft_loss(material.sft),
        "curation": plots_pipeline.curation(material.candidates),
        "reasons": plots_pipeline.curation_reasons(material.candidates),
        "scores": plots_pipeline.before_after(material.evals[0], material.evals[-1]),
    }
    for name, figure in figures.items():
        assert figure is not None, name
        assert any(ax.get_xlabel() for ax in figure.axes), name
        assert figure.get_size_inches()[0] * figure.dpi == 900, name


def test_missing_keys_give_no_figure() -> None:
    rows = [{"step": 1, "loss": 0.5, "reward/mean": None}]
    for function in (plots.reward, plots.response_length, plots.entropy, plots.kl_and_clip, plots.staleness):
        assert function(rows) is None
    for function in (plots.probe_delta, plots.grad_norm_and_lr):
        assert function(rows) is None
    assert plots.fates_over_time([files.FateRow(0, "s", "filtered", "all_wrong", 0, 0)]) is None
    assert plots.accuracy(rows, []) is None
    assert plots_timeline.timeline([]) is None
    assert plots_pipeline.sft_loss({"sft-1-align": [{"step": 1}]}) is None
    assert plots_pipeline.curation({"pass_at_1": [], "pass_at_n": [], "kept": []}) is None


@pytest.mark.parametrize("null", [None, {}])
def test_one_row_and_null_values_are_drawn(null: Any) -> None:
    rows = [
        {"step": 1, "reward/mean": 0.5, "accuracy/a": None, "staleness/hist": null, "staleness/mean": 0.0},
        {"step": 2, "probe/logprob_delta_mean": 0.0, "kl/behaviour": 0.0, "grad_norm": 1.0},
    ]
    unscored = files.EvalResult(0, 8, None, None, {"a": files.EvalTask(None, None, 0, None)}, ())
    figures = [plots.reward(rows), plots.staleness(rows), plots.probe_delta(rows), plots.kl_and_clip(rows)]
    figures += [plots.grad_norm_and_lr(rows), plots.accuracy(rows, [unscored])]
    for figure in figures:
        assert figure is not None
        assert style.png_bytes(figure).startswith(b"\x89PNG")


def test_every_part_of_the_reward_has_its_curve() -> None:
    rows = [{"step": 1, "component/form": 0.5, "component/length": 1.0}, {"step": 2, "component/form": 0.75}]
    figure = plots.components(rows)
    assert figure is not None
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert drawn == {"form": [0.5, 0.75], "length": [1.0]}
    assert plots.components([{"step": 1, "reward/mean": 0.5}]) is None


def test_fates_are_counted_per_step() -> None:
    """Groups 0, 1 trained in step 1, group 3 in step 3; 2 filtered on the way to step 1, 4 and 5 on that to step 3."""
    closed = [("trained", 1), ("trained", 1), ("filtered", 0), ("trained", 3), ("filtered", 2), ("filtered", 2)]
    closed += [("stale", 1), ("filtered", 3), ("in_flight", None)]  # the filtered one is of a step 4 that never came
    fates = [files.FateRow(uid, "s", fate, None, 0, step) for uid, (fate, step) in enumerate(closed)]
    counts = {"trained": [2, 0, 1], "filtered": [1, 0, 2], "stale": [0, 1, 0], "failed": [0, 0, 0]}
    assert plots.fates_per_step(fates) == counts
    figure = plots.fates_over_time(fates)
    assert figure is not None
    assert {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines} == counts


def test_every_task_has_a_line_of_its_own() -> None:
    rows = [{"step": 1, "reward/mean": 0.5, **{f"reward/task{i}": 0.5 for i in range(20)}}]
    figure = plots.reward(rows)
    assert figure is not None
    styles = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in figure.axes[0].lines}
    assert len(styles) == 21  # and the mean over all


def test_nothing_clipped_is_not_drawn() -> None:
    rows = [{"step": step, "kl/behaviour": 1e-4, "clip/fraction": 0.0} for step in (1, 2)]
    one, two = plots.kl_and_clip(rows), plots.kl_and_clip([*rows, {"step": 3, "clip/fraction": 0.25}])
    assert one is not None and [ax.get_ylabel() for ax in one.axes] == ["nats per token"]
    assert two is not None and [ax.get_ylabel() for ax in two.axes] == ["nats per token", "% clipped"]
    assert plots.kl_and_clip([{"step": 1, "clip/fraction": 0.0}]) is None


def test_stages_have_scales_of_their_own() -> None:
    figure = plots_pipeline.sft_loss({"one": [{"step": 1, "loss": 6.0}], "two": [{"step": 1, "loss": 0.5}]})
    assert figure is not None
    low, high = (ax.get_ylim() for ax in reversed(figure.axes))
    assert low[0] == high[0] == 0 and low[1] < 1 < 6 < high[1]


def test_staleness_counts_groups_over_all_steps() -> None:
    rows = [{"step": 1, "staleness/hist": {"0": 1, "2": 1}}, {"step": 2, "staleness/hist": {"2": 2}}]
    figure = plots.staleness(rows)
    assert figure is not None
    assert [patch.get_height() for patch in figure.axes[0].patches] == [1, 0, 3]
    assert [text.get_text() for text in figure.axes[0].texts] == ["25%", "0%", "75%"]


def test_timeline_states_busy_shares(pipeline_template: Path) -> None:
    """The learner trains 3 of 4 s. The window ends with training, so that all of the 480 s count."""
    figure = plots_timeline.timeline(gather(pipeline_template).timeline)
    assert figure is not None
    assert "75% busy" in _labels(figure) and "88% busy" in _labels(figure)  # rollout-0 works 3.5 of 4 s: 87.5 %


def test_order_of_actors() -> None:
    given = {"sync", "rollout-10", "rollout-2", "learner", "reward"}
    assert plots_timeline.order_actors(given) == ["learner", "rollout-2", "rollout-10", "reward", "sync"]


def test_before_after_states_points() -> None:
    old = files.EvalResult(0, 8, 0.5, 0.75, {"a": files.EvalTask(0.5, 0.75, 4, 1.0)}, ())
    new = files.EvalResult(9, 8, 0.625, 0.75, {"a": files.EvalTask(0.25, 0.75, 4, 1.0)}, ())
    labels = _labels(plots_pipeline.before_after(old, new))
    assert {"+12.5", "-25.0", "+0.0"} <= set(labels)


def test_smooth_by_hand() -> None:
    # width 3: (1+2)/2, (1+2+6)/3, (2+6+3)/3, (6+3)/2
    assert style.smooth([1, 2, 6, 3], 3) == pytest.approx([1.5, 3.0, 11 / 3, 4.5])
    assert style.window(40) == 5 and style.window(400) == 21


def test_encodings(pipeline_template: Path) -> None:
    figure = plots.entropy(files.read_metrics(pipeline_template / "rl").rows)
    assert figure is not None
    uri = style.svg_uri(figure)
    assert b"<svg" in base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,"))
    assert style.png_bytes(figure).startswith(b"\x89PNG")


def test_matplotlib_is_imported_only_when_a_plot_is_drawn() -> None:
    code = "import sys, rl.metrics.report_sections, rl.metrics.summary, rl.metrics.tracker, rl.metrics.console\n"
    code += "sys.exit(any(name in sys.modules for name in ('matplotlib', 'torch', 'wandb', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
