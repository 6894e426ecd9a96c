"""Recaptioning: what is read, asked and refused, with models that answer over real HTTP as a test tells them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rl.config.base import parse_config
from rl.config.rewriting import CaptionRules, FigureColumns, RecaptionConfig, RouteConfig
from rl.curate.asking import UnreadableReply, read_object, read_scores
from rl.curate.captions import read_figure, read_route, repeated_share, route, rule_broken
from rl.curate.recaption import check, run
from rl.data.containers import RawRow
from rl.data.validate import RowError
from rl.errors import ConfigError, DataError, EngineDeadError, EngineError
from tests.unit.rewards.judge_server import Call, JudgeServer, Reply, serve

from .test_clean import png

LOOSE = CaptionRules(min_words=2, max_words=50, max_repeated=0.2)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("A bar chart of yields.", None),
        ("Yields.", "length"),
        ("word " * 51, "length"),
        ("I'm sorry, I can't see the image.", "refused"),
        ("As an AI model, no image.", "refused"),
        ("The curve falls as shown in the text for all samples.", "not_self_contained"),
        ("A schematic of the cell, see Ref. 12 for its parts.", "not_self_contained"),
        ("The trend was reported before [12] by others.", "not_self_contained"),
        ("Peaks are those in Fig. 3 of the paper.", "not_self_contained"),
        ("The axis runs from [0, 1] in steps of 5.", None),
        ("It falls and it falls and it falls and it falls and it falls again.", "repeating"),
    ],
)
def test_rules_for_a_caption(caption: str, reason: str | None) -> None:
    broken = rule_broken(caption, LOOSE)
    assert (broken[0] if broken else None) == reason


def test_share_of_repeated_pieces() -> None:
    # a b c d a b c d: pieces abcd bcda cdab dabc abcd, of which one stood before
    assert repeated_share([*"abcdabcd"]) == pytest.approx(1 / 5)
    assert repeated_share([*"abc"]) == 0


ROUTES = (
    RouteConfig(types=("chart", "table"), difficulties=("easy",), model="small"),
    RouteConfig(types=("molecule",), model="chemist"),
    RouteConfig(model="large"),
)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (("chart", "easy"), "small"),
        (("chart", "hard"), "large"),
        (("molecule", "hard"), "chemist"),
        (("photo", "easy"), "large"),
        (None, "large"),
    ],
)
def test_routes(kind: tuple[str, str] | None, model: str) -> None:
    assert route(kind, ROUTES) == model


def test_replies() -> None:
    types = ("chart", "photo")
    assert read_route('<think>hm</think>```json\n{"figure_type": "chart", "difficulty": "easy"}\n```', types) == (
        "chart",
        "easy",
    )
    for bad in ('{"figure_type": "graph", "difficulty": "easy"}', "chart", "[]", "<think>never ends"):
        with pytest.raises(UnreadableReply):
            read_route(bad, types)
    assert read_scores(read_object('{"a": 5, "b": 1}'), ("a", "b")) == {"a": 5, "b": 1}
    for bad in ('{"a": 6}', '{"a": true}', '{"a": "5"}', "{}"):
        with pytest.raises(UnreadableReply, match="not an integer from 1 to 5"):
            read_scores(read_object(bad), ("a",))


def test_a_row_of_the_public_set(tmp_path: Path) -> None:
    """Columns as UniParser/OmniScience has them, with in-text references as a list."""
    values = {
        "image": {"bytes": b"png", "path": None},
        "raw_caption": " Fig. 1: yields. ",
        "context": ["As Fig. 1 shows.", " As Fig. 1 shows. ", "", "Yields rise."],
        "questions": [{"question": "Which?", "answer": "B", "options": None}],
        "title": "On yields",
        "doi": None,
    }
    figure = read_figure(RawRow(tmp_path / "train-0.parquet", 7, values), FigureColumns())
    assert (figure.id, figure.caption, figure.context) == (
        "train-0_7",
        "Fig. 1: yields.",
        "As Fig. 1 shows.\n\nYields rise.",
    )
    assert figure.questions == '[{"question": "Which?", "answer": "B"}]'
    assert figure.columns == {"title": "On yields", "doi": None}
    for change, words in (
        ({"raw_caption": None}, "the caption must be text"),
        ({"image": None}, "missing image"),
        ({"image": [b"a", b"b"]}, "holds 2 images"),
        ({"context": [1]}, "must be text or a list of texts"),
    ):
        with pytest.raises(RowError, match=words):
            read_figure(RawRow(tmp_path / "a.parquet", 0, values | change), FigureColumns())


FULL = "A bar chart of the yield of four catalysts in per cent: A has 20, B 40, C 60 and D 80."


def figures(path: Path) -> Path:
    """Eight figures; what becomes of each follows from its caption."""
    names = ["chart", "molecule", "refuse", "bad score", "weak", "no json", "again", "forbidden"]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        image = png((number * 5, 5, 60, 60 + number))
        rows.append({"id": f"f{number}", "image": image, "raw_caption": f"Plot: {name}.", "context": f"See {name}."})
    rows[6]["image"] = rows[0]["image"]
    rows[0]["questions"] = json.dumps([{"question": "Best?", "answer": "D", "options": ["A", "D"]}])
    rows[1]["questions"] = json.dumps([{"question": "Rings?", "answer": "2"}])
    rows.append({"id": "f8", "image": b"no image", "raw_caption": "Plot: broken.", "context": None})
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def answer(call: Call, number: int) -> Reply:
    """Router, writer, judge and reader in one; which of them is asked stands in the model's name."""
    asked = json.dumps(call.body["messages"])
    name = call.body["model"]
    if name == "router":
        kind = "molecule" if "Plot: molecule" in asked else "chart"
        return Reply(json.dumps({"figure_type": kind, "difficulty": "easy"}) if "no json" not in asked else "a chart")
    if name == "judge":
        if "bad score" in asked and call.body["seed"] == 0:
            return Reply('{"faithfulness": 9, "completeness": 5, "self_containedness": 5}')
        return Reply(
            json.dumps(
                dict.fromkeys(("faithfulness", "completeness", "self_containedness"), 3 if "weak" in asked else 5)
            )
        )
    if name == "reader":
        return Reply(json.dumps({"answer": ("D" if "D 80" in asked else "cannot tell") if "Best?" in asked else "2"}))
    if "forbidden" in asked:
        return Reply(status=400, raw=b"content policy")
    return Reply("I'm sorry, I can't." if "refuse" in asked else f"{FULL} It was written by {name}.")


def settings(server: JudgeServer, folder: Path, **changes: Any) -> RecaptionConfig:
    def model(name: str) -> dict[str, Any]:
        return {"endpoint": {"url": server.url, "model": name, "retries": 0, "backoff_s": 0}}

    names = ("router", "judge", "writer", "chemist")
    raw = {
        "figures": str(folder / "figures.parquet"),
        "out": str(folder / "out"),
        "models": {name: model(name) for name in names},
        "router": "router",
        "routes": [{"types": ["molecule"], "model": "chemist"}, {"model": "writer"}],
        "rules": {"min_words": 5},
        "quality": {"model": "judge"},
        "reader": {"url": server.url, "model": "reader", "backoff_s": 0},
    }
    return parse_config(RecaptionConfig, raw | changes)


def test_figures_are_routed_rewritten_and_filtered(tmp_path: Path) -> None:
    figures(tmp_path / "figures.parquet")
    with serve(answer) as server:
        config = settings(server, tmp_path)
        assert check(config) == []
        target = run(config)
    rows = {row["id"]: row for row in pq.read_table(target).to_pylist()}
    assert set(rows) == {"f0", "f1", "f3"}
    assert rows["f0"]["caption"] == f"{FULL} It was written by writer." and rows["f0"]["raw_caption"] == "Plot: chart."
    assert (rows["f1"]["recaption_model"], rows["f1"]["figure_type"]) == ("chemist", "molecule")
    assert rows["f3"]["score_faithfulness"] == 5, "a score that is none is asked for again"
    assert (rows["f0"]["qa_before"], rows["f0"]["qa"]) == (0.0, 1.0)
    assert (rows["f1"]["qa_before"], rows["f1"]["qa"]) == (1.0, 1.0)
    assert rows["f0"]["image"]["bytes"].startswith(b"\x89PNG")
    removed = {row["id"]: row["reason"] for row in pq.read_table(tmp_path / "out" / "removed.parquet").to_pylist()}
    assert removed == {
        "f2": "refused",
        "f4": "low_quality",
        "f5": "unanswered",
        "f6": "duplicate",
        "f7": "unanswered",
        "f8": "broken_image",
    }
    report = json.loads((tmp_path / "out" / "recaption.json").read_text())
    assert report["figures"] == 9 and report["kept"] == 3 and report["caption_qa"] == {"before": 0.5, "after": 1.0}
    # "Plot: chart." has 2 words, "Plot: bad score." 3; the new ones 22 of FULL and "It was written by X." 5
    assert report["words"] == {"before": pytest.approx(7 / 3), "after": len(FULL.split()) + 5}
    assert report["models"] == {"writer": 2, "chemist": 1}
    assert "Before and after" in (tmp_path / "out" / "report.html").read_text()
    record = json.loads((tmp_path / "out" / "recaption.manifest.json").read_text())
    assert record["counts"]["kept"] == 3 and "captions.parquet" in record["outputs"]


def test_a_broken_run_goes_on_without_asking_twice(tmp_path: Path) -> None:
    figures(tmp_path / "figures.parquet")
    down = [True]

    def flaky(call: Call, number: int) -> Reply:
        return Reply(status=503) if down[0] and number % 2 else answer(call, number)

    with serve(flaky) as server:
        config = settings(server, tmp_path, at_once=1, reader=None)
        with pytest.raises(EngineError, match=r"rows could not be worked on: .*503.*Run the same command again"):
            run(config)
        assert not (tmp_path / "out" / "recaption.manifest.json").exists()
        answered = sum(number % 2 == 0 for number in range(len(server.calls)))
        down[0] = False
        run(config)
        asked = [json.dumps([call.body["model"], call.body["messages"], call.body["seed"]]) for call in server.calls]
        report = json.loads((tmp_path / "out" / "recaption.json").read_text())
        # Refused requests leave nothing to keep; every other reply is asked for once in the two runs.
        assert report["replies"]["known"] >= answered - sum("forbidden" in text for text in asked)
        before = len(server.calls)
        run(config)
        assert all("forbidden" in json.dumps(call.body) for call in server.calls[before:])
    assert json.loads((tmp_path / "out" / "recaption.json").read_text())["replies"]["asked"] == 0


def test_an_endpoint_that_cannot_be_used(tmp_path: Path) -> None:
    figures(tmp_path / "figures.parquet")
    denied = serve(lambda call, number: Reply(status=401, raw=b"who?"))
    with denied as server, pytest.raises(EngineDeadError, match="check api_key_env"):
        run(settings(server, tmp_path))


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    figures(tmp_path / "figures.parquet")
    with serve(answer) as server:
        config = settings(server, tmp_path, rules={"min_words": 500})
        with pytest.raises(DataError, match=r"no figure of .* is left"):
            run(config)
    (tmp_path / "bad.jsonl").write_text('{"raw_caption": "x"}\n')
    with pytest.raises(DataError, match=r"holds no figure; .*missing image"):
        run(settings(server, tmp_path, figures=str(tmp_path / "bad.jsonl")))


def test_captions_that_were_cut_off_are_no_captions(tmp_path: Path) -> None:
    figures(tmp_path / "figures.parquet")

    def script(call: Call, number: int) -> Reply:
        reply = answer(call, number)
        return replace(reply, finish_reason="length") if call.body["model"] == "writer" else reply

    with serve(script) as server:
        run(settings(server, tmp_path, reader=None))
    rows = pq.read_table(tmp_path / "out" / "removed.parquet").to_pylist()
    details = {row["id"]: row["detail"] for row in rows}
    assert details["f0"] == "the reply of writer was cut off at max_tokens 2048; raise it"


def test_a_reader_that_fails_is_said(tmp_path: Path) -> None:
    figures(tmp_path / "figures.parquet")

    def script(call: Call, number: int) -> Reply:
        return Reply("no verdict") if call.body["model"] == "reader" else answer(call, number)

    reader = {"model": "reader", "backoff_s": 0, "retries": 0}
    with serve(script) as server, pytest.raises(EngineError, match="caption QA: no caption could be asked about"):
        run(settings(server, tmp_path, reader=reader | {"url": server.url}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routes": [{"types": ["molecule"], "model": "writer"}]}, "the last route must take all"),
        ({"routes": [{"model": "nobody"}]}, "names the model 'nobody'; known: chemist, judge, router, writer"),
        ({"routes": [{"types": ["graph"], "model": "writer"}, {"model": "writer"}]}, "graph are no figure types"),
        ({"router": None}, "several routes need a router"),
        ({"quality": {"model": "x"}}, "quality.model names the model 'x'"),
        ({"models": {"router": {}}}, "set either endpoint or model"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    server = JudgeServer("http://127.0.0.1:1/v1", answer)
    with pytest.raises(ConfigError, match=message):
        settings(server, tmp_path, **changes)
