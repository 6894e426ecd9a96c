"""The conformance kit: what a verifier must hold before a training run may rely on it.

    report = rewards.conformance.check("grading/balanced.py")
    assert report.passed, report.text()

`rewards check PLUGIN` is the same on the command line.
"""

from rewards.conformance.kit import Settings, check
from rewards.conformance.report import Finding, Report

__all__ = ["Finding", "Report", "Settings", "check"]
