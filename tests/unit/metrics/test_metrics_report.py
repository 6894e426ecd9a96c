from __future__ import annotations

import hashlib
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rl.errors import DataError
from rl.metrics.files import EvalExample
from rl.metrics.html import image
from rl.metrics.report import write_report
from rl.metrics.report_sections import choose_completions

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what the tests ask for and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = {key: value or "" for key, value in attrs}
        self.links += [named[key] for key in ("src", "href", "srcset", "data", "action") if key in named]
        self.ids |= {named["id"]} if "id" in named else set()
        if tag == "tr":
            self.rows.append([])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def text(pipeline_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the whole synthetic pipeline."""
    folder = tmp_path_factory.mktemp("report") / "quickstart"
    path = write_report(Path(shutil.copytree(pipeline_template, folder)))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_pipeline_report_is_whole_and_self_contained(text: str) -> None:
    page = Page(text)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    assert page.ids >= {"scores", "training", "timeline", "fates", "examples", "curation", "sft", "pipeline", "config"}
    assert "script" not in page.tags and "link" not in page.tags and "@import" not in text and "url(" not in text
    assert not any("Not here" in word or "No plot" in word for word in page.words)


def test_numbers_of_the_tables(text: str) -> None:
    rows = Page(text).rows
    assert ["counting", "16", "25.0", "60.0", "+35.0", "75.0", "90.0", "+15.0"] in rows
    assert ["molecule", "16", "45.0", "43.0", "-2.0", "75.0", "75.0", "+0.0"] in rows
    assert ["all", "64", "35.0", "53.2", "+18.2", "75.0", "82.5", "+7.5"] in rows
    assert ["trained", "-", "960", "79.2%"] in rows  # 960 / 1212
    assert ["admitted", "1212", "100.0%"] in rows  # the empty cell between holds no text
    # The learner works 1-4 and some rollout 0-3.5 of each 4 s: both 2.5, learner waits 1, rollouts wait 0.5.
    assert ["both worked", "62.5%", "300.0"] in rows
    assert ["learner waited for rollout", "25.0%", "120.0"] in rows
    assert ["rollout waited for learner", "12.5%", "60.0"] in rows
    (align,) = [row for row in rows if row[0] == "sft-1-align"]
    assert (align[1], align[5]) == ("400", "40 s")  # the last step, not the 80 rows that were logged
    assert ["all", "10 min 00 s"] in rows  # 120 + 480.5 s, to the even second


def test_header_names_config_and_machine(text: str, pipeline_template: Path) -> None:
    pipeline = pipeline_template
    digest = hashlib.sha256((pipeline / "rl" / "config.yaml").read_bytes()).hexdigest()[:12]
    cpus = json.loads((pipeline / "rl" / "environment.json").read_text())["cpu_count"]
    assert f"config {digest}" in text and f"{cpus} CPUs" in text and "torch 2." in text
    assert "35.0 → 53.2 %" in text


def test_text_of_the_run_is_escaped(text: str) -> None:
    assert "<script>" not in text and "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text
    assert "<b>bold</b>" not in text and "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "&lt;answer&gt;3&lt;/answer&gt;" in text


def test_examples_show_both_sides_coloured_by_reward(text: str) -> None:
    assert text.count('<div class="example">') == 2  # two of the three counting examples
    for kind, count in (("right", 2), ("part", 2), ("wrong", 4), ("none", 4)):
        assert text.count(f'<div class="completion {kind}">') == count
    assert text.count('<img src="data:image/png;base64,') == 2


def test_examples_say_how_many_completions_and_hide_the_place_of_the_image(text: str) -> None:
    assert "before: 3 completions, mean reward 0.00" in text  # 0, 0 and one without a score
    assert "after: 3 completions, mean reward 0.75" in text
    assert "&lt;image&gt;" not in text and "<pre>How many discs are there?" in text


def test_right_and_wrong_completions_are_shown() -> None:
    texts = ("a", "b", "c", "a", "d", "e", "e", "e")
    rewards = (1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 0.5, 0.5)
    example = EvalExample("i", "s", "p", (), (), texts, rewards)
    assert choose_completions(example) == [("a", 1.0, 2), ("e", 0.5, 3), ("d", 0.0, 1)]
    right = EvalExample("i", "s", "p", (), (), ("4", "4", "4"), (1.0, 1.0, 1.0))
    assert choose_completions(right) == [("4", 1.0, 3)]


def test_missing_pieces_name_their_file(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "evals").mkdir(parents=True)
    text = write_report(run).read_text(encoding="utf-8")
    Page(text)
    for name in ("metrics.jsonl", "timeline.jsonl", "fates.jsonl", "step_000000.json", "config.yaml"):
        assert name in text
    assert "curate/" not in text  # a run folder of its own has no pipeline sections


def test_pipeline_without_curation_and_sft_says_so(pipeline: Path) -> None:
    shutil.rmtree(pipeline / "curate")
    for stage in pipeline.glob("sft-*"):
        shutil.rmtree(stage)
    text = write_report(pipeline).read_text(encoding="utf-8")
    assert "curate/candidates.parquet would hold it" in text and "sft-*/metrics.jsonl would hold it" in text


def test_torn_line_is_reported(pipeline: Path) -> None:
    with (pipeline / "rl" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 121, "re')
    assert "the last line (line 121) is torn" in write_report(pipeline / "rl").read_text(encoding="utf-8")


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither"):
        write_report(tmp_path)


def test_an_image_that_is_none_is_not_put_into_the_page() -> None:
    assert "could not be shown" in image('" onerror="alert(1)')
    assert "could not be shown" in image("PHN2Zz4=")  # <svg>: could hold scripts
    assert image("/9j/4AAQ").startswith('<img src="data:image/jpeg;base64,/9j/4AAQ"')
