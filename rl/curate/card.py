"""The dataset card: README.md with the metadata block that the Hugging Face Hub reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rl.config.base import dump_yaml
from rl.config.clean import CurationReportConfig

if TYPE_CHECKING:
    from rl.curate.report import Material

SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
"""The Hub's size categories below 10 million rows."""

COLUMNS = (
    ("id", "name of the row"),
    ("problem", "text; one `<image>` per image"),
    ("answer", "accepted answers"),
    ("images", "encoded files"),
    ("problem_type", "kind of problem"),
    ("answer_type", "the verifier that scores an answer"),
    ("source", "where the row comes from"),
    ("prompt_type", "`normal` asks for the answer only"),
    ("avg_reward", "mean reward of the profiled attempts"),
)


def card(config: CurationReportConfig, material: Material) -> str:
    """Metadata, composition, and how the set came about."""
    from rl.curate.report import composition, steps

    counts = steps(material)
    rows = counts[-1][1]
    lines = ["---", dump_yaml(_metadata(config, material, rows)).rstrip(), "---", "", f"# {config.title}", ""]
    lines += [f"{rows:,} problems with verifiable answers for reinforcement learning.", "", "## Composition", ""]
    wanted, reached = composition(material)
    header = "| group | share |" + (" wanted |" if wanted else "")
    lines += [header, "|---|---:|" + ("---:|" if wanted else "")]
    for name, share in reached.items():
        lines.append(f"| {_cell(name)} | {share:.1%} |" + (f" {wanted.get(name, 0):.1%} |" if wanted else ""))
    lines += ["", "## How it was made", "", "| step | rows left |", "|---|---:|"]
    lines += [f"| {_cell(name)} | {count:,} |" for name, count in counts]
    rule = material.selection["thresholds"] if material.selection else None
    if rule is not None:
        lines += [
            "",
            f"Kept are problems that the policy can solve (Pass@{rule['pass_k']} at least {rule['min_pass_at_k']:g}) "
            f"but rarely does (Pass@1 at most {rule['max_pass_at_1']:g}), with a mean reward between "
            f"{rule['band']['above']:g} and {rule['band']['below']:g}. Pass@k is estimated without bias.",
        ]
    lines += ["", "## Columns", "", "| column | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in COLUMNS]
    lines += ["", "## Provenance", ""]
    for step, record in material.manifests.items():
        for name, entry in record["inputs"].items():
            lines.append(f"- {step}, {name}: {entry['bytes']:,} bytes, sha256 `{entry['sha256']}`")
    return "\n".join(lines) + "\n"


def _metadata(config: CurationReportConfig, material: Material, rows: int) -> dict[str, object]:
    size = next((name for limit, name in SIZES if rows < limit), "n>10M")
    metadata: dict[str, object] = {"pretty_name": config.title}
    if config.license is not None:
        metadata["license"] = config.license
    metadata |= {
        "task_categories": ["visual-question-answering"],
        "tags": ["reinforcement-learning", "verifiable-rewards", "multimodal"],
        "size_categories": [size],
    }
    if material.data is not None:
        files = material.data.name if material.data.is_file() else f"{material.data.name}/*.parquet"
        metadata["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}]
    return metadata


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
