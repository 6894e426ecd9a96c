"""What the conformance kit found, as data, as text and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings on one verifier, with what was measured on the way."""

    plugin: str
    findings: tuple[Finding, ...]
    per_second: float | None = None
    """Its examples graded per second by one worker; None where it did not come to that."""
    slowest_ms: float | None = None
    """Its slowest example in milliseconds, the best of three."""
    growth_mb: float | None = None
    """Growth of a worker's resident memory in MiB over the last two thirds of the memory check's calls."""
    calls: int | None = None
    """How many calls these two thirds were."""

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(finding.check for finding in self.findings if not finding.passed)

    def text(self) -> str:
        """One line per check; what a failing test prints."""
        marks = {True: "ok  ", False: "FAIL"}
        lines = [f"{marks[finding.passed]} {finding.check}: {finding.detail}" for finding in self.findings]
        return "\n".join([f"conformance of {self.plugin}", *lines, self.measured()])

    def measured(self) -> str:
        """Throughput and memory in words; empty where nothing was measured."""
        parts = []
        if self.per_second is not None:
            parts.append(f"{self.per_second:,.0f} results/s per worker, slowest example {self.slowest_ms:.2f} ms")
        if self.growth_mb is not None:
            parts.append(f"memory {self.growth_mb:+.1f} MiB over {self.calls} calls")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


def show(report: Report, console: Console) -> None:
    """Print a report as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", title=f"conformance of {report.plugin}", title_justify="left")
    table.add_column(overflow="fold")
    for finding in report.findings:
        mark = Text("ok", style="green") if finding.passed else Text("FAIL", style="bold red")
        table.add_row(finding.check, mark, Text(finding.detail))  # Text: details hold brackets of hostile input
    console.print(table)
    if report.measured():
        console.print(report.measured())
