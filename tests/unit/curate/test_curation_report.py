"""`rl curate report` on small curated sets: what the page and the card say."""

from __future__ import annotations

import io
import re

import pytest
import yaml
from PIL import Image

from rl.config.base import parse_config
from rl.config.clean import CleanConfig, CurationReportConfig
from rl.config.curate import SelectionConfig
from rl.curate import clean, report, selection
from rl.data.formats import write_samples
from rl.errors import ConfigError, DataError

from .conftest import right_of, sample, store


def picture(level: int) -> bytes:
    image = Image.linear_gradient("L").resize((48, 48)).rotate(level)
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


@pytest.fixture()
def curated(tmp_path):
    """Folders of a cleaning and of a selection from what it left, and their attempts."""
    samples = [
        sample("<b>bold</b>", problem="Is <script>alert(1)</script> one?"),
        sample("stem", problem_type="stem", source="books", problem="<image>Which?", images=(picture(30),)),
        sample("easy", problem_type="stem", problem="Easy?"),
        sample("again", problem_type="stem", problem="Easy?"),
    ]
    write_samples(samples, tmp_path / "raw.parquet")
    settings = {"data": str(tmp_path / "raw.parquet"), "out": str(tmp_path / "cleaned"), "golds": {"verify": False}}
    data = clean.run(parse_config(CleanConfig, settings))
    folder = store(tmp_path / "made", {"<b>bold</b>": right_of(2), "stem": right_of(3), "easy": right_of(8)})
    raw = {"candidates": str(data), "attempts": [str(folder)], "out": str(tmp_path / "selected")}
    composition = {"shares": {"ocr": 0.25, "stem": 0.75}}
    selection.run(parse_config(SelectionConfig, raw | {"pick": {"size": 4, "composition": composition}}))
    return {"cleaning": str(tmp_path / "cleaned"), "selection": str(tmp_path / "selected"), "attempts": [str(folder)]}


def written(curated, tmp_path, **changes) -> tuple[str, str]:
    settings = {"out": str(tmp_path / "page"), "title": "Birds & bees", "license": "apache-2.0"} | curated | changes
    page = report.run(parse_config(CurationReportConfig, settings))
    return page.read_text(), (page.parent / "README.md").read_text()


def test_the_page_is_whole_and_needs_nothing_else(curated, tmp_path):
    page, _ = written(curated, tmp_path)
    for anchor in ("funnel", "region", "composition", "sources", "attempts", "removed", "gallery", "made"):
        assert f'<section id="{anchor}">' in page
    assert "<script" not in page and "<b>bold</b>" not in page  # what data holds is text
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("data:image/svg+xml") == 4 and page.count("data:image/png") == 1
    assert "<td>books</td><td>1</td><td>1</td><td>100.0%</td><td>0.375</td>" in page
    assert "<td>stem</td><td>3</td><td>1</td><td>1</td><td>2</td><td>75.0%</td><td>50.0%</td>" in page
    assert "<td>again</td><td>Easy?</td><td>same text and images</td><td>easy</td>" in page
    assert "<td>ok</td><td>24</td>" in page


def test_the_card_is_in_the_form_of_the_hub(curated, tmp_path):
    _, card = written(curated, tmp_path)
    _, header, body = card.split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "apache-2.0" and metadata["size_categories"] == ["n<1K"]
    assert metadata["configs"][0]["data_files"] == [{"split": "train", "path": "rl_set.parquet"}]
    assert "| stem | 50.0% | 75.0% |" in body
    steps = re.findall(r"\| ([\w ]+) \| (\d+) \|", body)
    assert steps == [
        ("raw rows", "4"),
        ("exact_duplicate", "3"),
        ("candidates", "3"),
        ("too_easy", "2"),
        ("the set", "2"),
    ]


def test_a_cleaning_alone_is_reported_too(curated, tmp_path):
    page, card = written(curated, tmp_path, selection=None, attempts=[])
    assert '<section id="gallery">' in page and '<section id="region">' not in page
    assert "3 problems with verifiable answers" in card


def test_a_step_that_did_not_end_is_not_reported(curated, tmp_path):
    (tmp_path / "selected" / "select.manifest.json").unlink()
    with pytest.raises(DataError, match="`rl curate select` did not end there"):
        written(curated, tmp_path)


def test_a_report_is_about_something(tmp_path):
    with pytest.raises(ConfigError, match="nothing to report on"):
        parse_config(CurationReportConfig, {"out": str(tmp_path)})


def test_a_cleaning_that_did_not_feed_the_selection_is_refused(curated, tmp_path):
    other = tmp_path / "other.parquet"
    write_samples([sample("x", problem="Another?"), sample("y", problem="One more?")], other)
    settings = {"data": str(other), "out": str(tmp_path / "elsewhere"), "golds": {"verify": False}}
    clean.run(parse_config(CleanConfig, settings))
    with pytest.raises(DataError, match=r"is not what the cleaning in .*elsewhere left; leave cleaning out"):
        written(curated, tmp_path, cleaning=str(tmp_path / "elsewhere"))
