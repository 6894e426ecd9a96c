"""One self-contained HTML file about a run or a whole pipeline: inline styles and images, no script, no network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl.metrics import files, html
from rl.metrics.files import EvalResult, FateRow, MetricRow, Span


@dataclass(slots=True)
class Material:
    """What the folders hold; a missing piece stays empty and the sections say which file would hold it."""

    folder: Path
    run_dir: Path | None
    pipeline_dir: Path | None
    metrics: Sequence[MetricRow] = ()
    timeline: Sequence[Span] = ()
    fates: Sequence[FateRow] = ()
    evals: Sequence[EvalResult] = ()
    config: str | None = None
    environment: dict[str, Any] | None = None
    sft: dict[str, Sequence[MetricRow]] = field(default_factory=dict)
    candidates: dict[str, list[Any]] | None = None
    pipeline: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was odd about a file, such as a torn last line."""

    @property
    def config_digest(self) -> str | None:
        """First 12 hex digits of the sha256 of `config.yaml`."""
        return None if self.config is None else hashlib.sha256(self.config.encode()).hexdigest()[:12]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder or a pipeline folder and return its path.

    Raises:
        DataError: the folder holds neither, or a file in it is malformed.
    """
    from rl.metrics import report_sections as sections

    folder = Path(run_dir)
    material = gather(folder)
    parts = [
        ("scores", "Before and after", sections.scores(material)),
        ("training", "Training", sections.training(material)),
        ("timeline", "Who waited for whom", sections.timeline(material)),
        ("fates", "What became of every prompt", sections.fates(material)),
        ("agreement", "Engine against learner", sections.agreement(material)),
        ("examples", "Examples", sections.examples(material)),
    ]
    if material.pipeline_dir is not None:
        parts.append(("curation", "Curation", sections.curation(material)))
        parts.append(("sft", "Supervised stages", sections.sft(material)))
        parts.append(("pipeline", "Steps of the pipeline", sections.pipeline(material)))
    parts.append(("config", "Config", sections.config(material)))
    links = "".join(f'<a href="#{anchor}">{html.text(title)}</a>' for anchor, title, _ in parts)
    body = [sections.header(material), f"<nav>{links}</nav>"]
    body += [html.note(message) for message in material.notes]
    body += [html.section(anchor, title, *content) for anchor, title, content in parts]
    path = folder / files.REPORT
    path.write_text(html.page(f"{folder.resolve().name}: report", "\n".join(body)), encoding="utf-8")
    return path


def gather(folder: Path) -> Material:
    """Read everything that a report shows."""
    run_dir, pipeline_dir = files.find_run(folder)
    material = Material(folder, run_dir, pipeline_dir)
    if run_dir is not None:
        _gather_run(material, run_dir)
    if pipeline_dir is not None:
        _gather_pipeline(material, pipeline_dir)
    return material


def _gather_run(material: Material, run_dir: Path) -> None:
    if (run_dir / files.METRICS).exists():
        metrics = files.read_metrics(run_dir)
        material.metrics = metrics.rows
        _add_note(material, metrics.note)
    if (run_dir / files.TIMELINE).exists():
        timeline = files.read_timeline(run_dir)
        material.timeline = timeline.rows
        _add_note(material, timeline.note)
    if (run_dir / files.FATES_FILE).exists():
        fates = files.read_fates(run_dir)
        material.fates = fates.rows
        _add_note(material, fates.note)
    material.evals = files.read_evals(run_dir)
    if (run_dir / files.CONFIG).exists():
        material.config = (run_dir / files.CONFIG).read_text(encoding="utf-8")
    if (run_dir / files.ENVIRONMENT).exists():
        material.environment = json.loads((run_dir / files.ENVIRONMENT).read_text(encoding="utf-8"))


def _gather_pipeline(material: Material, pipeline_dir: Path) -> None:
    for stage in sorted(pipeline_dir.glob(files.SFT_GLOB)):
        if (stage / files.METRICS).exists():
            metrics = files.read_metrics(stage)
            material.sft[stage.name] = metrics.rows
            _add_note(material, metrics.note and f"{stage.name}: {metrics.note}")
    candidates = pipeline_dir / files.CURATE_FOLDER / files.CANDIDATES
    if candidates.exists():
        material.candidates = files.read_candidates(candidates)
    if (pipeline_dir / files.PIPELINE).exists():
        material.pipeline = files.read_pipeline(pipeline_dir)


def _add_note(material: Material, message: str | None) -> None:
    if message:
        material.notes.append(message)
