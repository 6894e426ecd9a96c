"""`summary.json` of a run, and the last lines that a run or a pipeline prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from rl.errors import DataError, LedgerError
from rl.metrics import files
from rl.metrics.console import seconds_text
from rl.metrics.files import EvalResult, EvalTask, FateRow, MetricRow
from rl.metrics.tracker import write_json

Row = tuple[str, str, str, str, str, str, str, str]
HEADER = ("task", "prompts", "mean@{k} before", "after", "change", "Pass@{k} before", "after", "change")
_NO_TASK = EvalTask(mean=None, passed=None, count=None, length_mean=None)


def build_summary(run_dir: Path) -> dict[str, Any]:
    """Read a run's files, write `summary.json` and return it.

    `before` is the evaluation of step 0 and `after` the last one of a later step; each is null if it was not made.
    `max_probe_logprob_delta` is the largest mean |delta logprob| (nats) of any push, `max_probe_logprob_delta_token`
    the largest of any token; null without a probe. `wall_seconds` runs from the run's start to its last record.

    Raises:
        DataError: metrics or fates are missing or malformed.
        LedgerError: more groups were trained by the metrics than the fates hold.
    """
    rows = files.read_metrics(run_dir).rows
    fates = files.read_fates(run_dir).rows
    spans = files.read_timeline(run_dir).rows if (run_dir / files.TIMELINE).exists() else ()
    before, after = before_and_after(files.read_evals(run_dir))
    times = [float(row["time_s"]) for row in rows if row.get("time_s") is not None] + [span.end for span in spans]
    summary = {
        "before": None if before is None else scores(before),
        "after": None if after is None else scores(after),
        "fates": count_fates(fates),
        "max_probe_logprob_delta": _largest(rows, "probe/logprob_delta_mean"),
        "max_probe_logprob_delta_token": _largest(rows, "probe/logprob_delta_max"),
        "wall_seconds": max(times, default=0.0),
        "steps": max((int(row["step"]) for row in rows), default=0),
    }
    write_json(run_dir / files.SUMMARY, summary)
    return summary


def before_and_after(evals: Sequence[EvalResult]) -> tuple[EvalResult | None, EvalResult | None]:
    """The evaluation of step 0 and the last later one."""
    before = next((result for result in evals if result.step == 0), None)
    later = [result for result in evals if result.step > 0]
    return before, later[-1] if later else None


def count_fates(fates: Sequence[FateRow]) -> dict[str, int]:
    """`admitted` and a count for every fate, zeros included.

    Raises:
        LedgerError: a uid stands twice, so that the counts would not mean admissions.
    """
    admitted = len({row.uid for row in fates})
    counts = Counter(row.fate for row in fates)
    if sum(counts.values()) != admitted:
        raise LedgerError(f"{admitted} admissions but {sum(counts.values())} fates; each admission has exactly one")
    return {"admitted": admitted, **{fate: counts[fate] for fate in files.FATES}}


def scores(result: EvalResult) -> dict[str, Any]:
    """An evaluation without its examples, under the keys of `summary.json`."""
    mean, passed = f"mean_at_{result.k}", f"pass_at_{result.k}"
    tasks = {
        name: {mean: task.mean, passed: task.passed, "count": task.count, "length_mean": task.length_mean}
        for name, task in sorted(result.tasks.items())
    }
    return {mean: result.mean, passed: result.passed, "tasks": tasks}


def comparison(before: EvalResult, after: EvalResult) -> tuple[tuple[str, ...], list[Row]]:
    """Header and rows of the before/after table, all tasks last; scores in per cent, changes in points."""
    header = tuple(title.format(k=after.k) for title in HEADER)
    rows = []
    for name in sorted(set(before.tasks) | set(after.tasks)):
        old, new = before.tasks.get(name, _NO_TASK), after.tasks.get(name, _NO_TASK)
        count = old.count if new.count is None else new.count
        rows.append(_row(name, count, (old.mean, new.mean, old.passed, new.passed)))
    counts = [task.count for task in after.tasks.values() if task.count is not None]
    total = sum(counts) if len(counts) == len(after.tasks) else None
    rows.append(_row("all", total, (before.mean, after.mean, before.passed, after.passed)))
    return header, rows


def print_final(folder: Path, console: Console | None = None, *, brief: bool = False) -> Path:
    """Print the outcome of a run or of a pipeline and return the report's path, which is the very last line printed.

    Writes `summary.json` of the run and of the pipeline (whose `wall_seconds` are the whole pipeline's; the run's own
    stand beside them as `rl_wall_seconds`), and `report.html` in `folder`.

    Args:
        brief: time and report only, for a pipeline whose last step has just printed the run's outcome.
    """
    from rl.metrics.report import write_report  # report needs this module's tables

    run_dir, pipeline_dir = files.find_run(folder)
    if run_dir is None:
        raise DataError(f"{folder} holds no run in {files.RL_FOLDER}/; there is no outcome to print")
    console = console or Console()
    summary = build_summary(run_dir)
    if pipeline_dir is not None:
        if (pipeline_dir / files.PIPELINE).exists():
            seconds = sum(float(step["seconds"]) for step in files.read_pipeline(pipeline_dir))
            summary = {**summary, "wall_seconds": seconds, "rl_wall_seconds": summary["wall_seconds"]}
        write_json(pipeline_dir / files.SUMMARY, summary)
    if not brief:
        _print_outcome(run_dir, summary, console)
    console.print(f"{summary['steps']} steps, {seconds_text(summary['wall_seconds'])}", highlight=False)
    report = write_report(folder)
    console.print(str(report), soft_wrap=True, highlight=False, markup=False)
    return report


def _print_outcome(run_dir: Path, summary: Mapping[str, Any], console: Console) -> None:
    before, after = before_and_after(files.read_evals(run_dir))
    if before is not None and after is not None:
        console.print(_rich_table(before, after))
    else:
        missing = f"no before/after table: {run_dir / files.EVALS} lacks step 0 or a later step"
        console.print(missing, soft_wrap=True, highlight=False, markup=False)
    console.print(fates_line(summary["fates"]), highlight=False, soft_wrap=True)
    probe = summary["max_probe_logprob_delta"]
    shown = "not measured" if probe is None else f"{probe:.2g} nats"
    console.print(f"engine against learner, largest mean |delta logprob|: {shown}", highlight=False)


def fates_line(fates: Mapping[str, int]) -> str:
    """`admitted 420 = trained 300 + filtered 100 + ...`."""
    parts = " + ".join(f"{name.replace('_', ' ')} {count}" for name, count in fates.items() if name != "admitted")
    return f"admitted {fates['admitted']} = {parts}"


def _rich_table(before: EvalResult, after: EvalResult) -> RichTable:
    header, rows = comparison(before, after)
    title = f"before RL and after {after.step} steps (%, change in points)"
    table = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        if row[0] == "all":
            table.add_section()
        table.add_row(*row, style="bold" if row[0] == "all" else None)
    return table


def _row(name: str, count: int | None, numbers: tuple[float | None, ...]) -> Row:
    old, new, old_pass, new_pass = (None if value is None else 100 * value for value in numbers)
    shown = "-" if count is None else str(count)
    return (
        name,
        shown,
        _cell(old),
        _cell(new),
        _gain(old, new),
        _cell(old_pass),
        _cell(new_pass),
        _gain(old_pass, new_pass),
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _gain(old: float | None, new: float | None) -> str:
    return "-" if old is None or new is None else f"{new - old:+.1f}"


def _largest(rows: Sequence[MetricRow], key: str) -> float | None:
    return max(files.column(rows, key)[1], default=None)
