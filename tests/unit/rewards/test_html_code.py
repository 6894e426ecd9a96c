"""HTML pages: similarities by hand, spellings of one page, pages that share tags or words alone, hostile markup."""

from __future__ import annotations

import pytest

from rewards import score
from rewards.base import RewardResult
from rewards.markup import MAX_CHARS, parse_page, unfenced

SHOP = """<!DOCTYPE html><html><head><title>Garden tools</title></head><body>
<header><h1>Garden tools for every season</h1>
<nav><a href="/new">New arrivals</a><a href="/sale">Sale</a></nav></header>
<section><h2>Spades</h2><p>Forged steel blades with ash handles, made to last a lifetime.</p></section>
<section><h2>Watering cans</h2><p>Galvanised, in three sizes, with a brass rose.</p></section>
<section><h2>Gloves</h2><p>Soft leather palms keep thorns away from your fingers.</p></section>
</body></html>"""
HOSPITAL = """<!DOCTYPE html><html><head><title>Annual report</title></head><body>
<header><h1>Hospital admissions by month</h1></header>
<section><p>Admissions rose during winter because influenza spread early.</p>
<table><tr><th>Month</th><th>Patients</th></tr><tr><td>January</td><td>1240</td></tr></table></section>
</body></html>"""


def grade(gold: str, prediction: str) -> RewardResult:
    return score(f"<think>so</think><answer>{prediction}</answer>", gold, "html-code")


def value(gold: str, prediction: str) -> float:
    result = grade(gold, prediction)
    assert result.status == "ok"
    assert result.value is not None
    return result.value


def test_the_sequences_of_a_page() -> None:
    page = parse_page(
        '<div id="x" class="b a"><p style="Color : red;;margin:0">Hi <b>you</b>, 木星!</p><img alt="a dog"></div>'
    )
    assert page is not None
    assert page.structure == (
        ["<div", ".a", ".b", "id=x", "<p", "style:color:red", "style:margin:0", "<b", "</b", "</p"]
        + ["<img", "alt=", "</img", "</div"]
    )
    assert page.words == ["Hi", "you", "木", "星", "a", "dog"]


@pytest.mark.parametrize(
    ("gold", "prediction", "structure", "content"),
    [
        ("<p>a b</p>", "<p>a b</p>", 1.0, 1.0),
        ("<p>a b</p>", "<p>a</p>", 1.0, 2 / 3),  # one of three words in all is left over
        ("<p>a b</p>", "<p>b a</p>", 1.0, 1 / 2),  # the longest common sequence has one word
        ("<p>a b</p>", "<div><p>a b</p></div>", 2 / 3, 1.0),  # two tokens of six are left over
        ("<p>a b</p>", "<b>a b</b>", 0.0, 1.0),
        ("<p>a b</p>", "<p>c d</p>", 1.0, 0.0),
        ('<p class="x">a</p>', "<p>a</p>", 4 / 5, 1.0),
        ("<hr><hr>", "<hr><hr>", 1.0, 1.0),
        ("<hr><hr>", "<hr><hr>four words not there", 1.0, 1 / 2),  # four tokens, four words
    ],
)
def test_similarities_by_hand(gold: str, prediction: str, structure: float, content: float) -> None:
    result = grade(gold, prediction)
    assert result.components["structure"] == pytest.approx(structure)
    assert result.components["content"] == pytest.approx(content)
    assert result.value == pytest.approx(structure * content)


def test_the_same_page_written_otherwise() -> None:
    compact = SHOP.replace("\n", " ").replace("</p>", "").replace('"', "'").replace("<h2>", "<H2><!-- next -->")
    assert value(SHOP, compact) == 1.0
    assert value(SHOP, SHOP.replace("<section>", "<script>track()</script><section>")) == 1.0
    assert value(SHOP, SHOP.replace("<!DOCTYPE html><html><head>", "")) == 1.0
    assert value('<a href="x" id="y">z</a>', "<a id=y href=x>z</a>") == 1.0


def test_a_shuffled_page_is_clearly_below_one() -> None:
    head, one, two, three = SHOP.split("<section>")
    three, tail = three.split("</body>")
    shuffled = "<section>".join([head, three, one, two]) + "</body>" + tail
    assert sorted(shuffled) == sorted(SHOP)
    # The content keeps 6 + 12 + 10 of 38 words at best: head and the first two sections, without the third.
    assert value(SHOP, shuffled) < 0.8
    reversed_words = "<p>" + " ".join(reversed([f"w{i}" for i in range(50)])) + "</p>"
    assert value("<p>" + " ".join(f"w{i}" for i in range(50)) + "</p>", reversed_words) == pytest.approx(1 / 50)


def test_an_irrelevant_page_is_near_zero() -> None:
    assert value(SHOP, HOSPITAL) < 0.1
    assert value(HOSPITAL, SHOP) < 0.1
    assert value(SHOP, "<p>I can not build this page.</p>") < 0.05


def test_neither_the_tags_nor_the_words_alone_are_a_page() -> None:
    page = parse_page(SHOP)
    assert page is not None
    assert value(SHOP, " ".join(page.words)) < 0.1
    assert (
        value(SHOP, "".join(f"<{tag}></{tag}>" for tag in ("title", "header", "h1", "nav", "a", "section", "p"))) == 0.0
    )


def test_what_stands_behind_the_page_counts() -> None:
    assert value("<html><body><p>a</p></body></html>", "<html><body><p>a</p></body></html><p>b</p>") < 1.0


def test_styles_are_part_of_the_structure() -> None:
    gold = "<style>p { color: red }</style><p>a</p>"
    assert value(gold, "<style>/* c */ p{color:red;}</style><p>a</p>") == 1.0
    assert value(gold, "<style> p  {\ncolor : red } /* open</style><p>a</p>") == 1.0
    assert value(gold, "<p>a</p>") < value(gold, "<style>p { color: blue }</style><p>a</p>") < 1.0


def test_one_fence_is_unwrapped() -> None:
    assert unfenced("Sure:\n```html\n<p>a</p>\n```\nDone.") == "<p>a</p>"
    assert unfenced("```a\n1\n```\n```b\n2\n```").startswith("```a")
    assert unfenced(" <p>```</p> ") == "<p>```</p>"


HOSTILE = {
    "deep": "<div>" * 19_000,
    "formatting": "".join(f"<b id={i}>" for i in range(4_000)) + "<p>x</p>" * 4_000,
    "attributes": "<a " + " ".join(f"a{i}=1" for i in range(12_000)) + ">",
    "slashes": "<a/" + "/".join(f"a{i}" for i in range(12_000)) + ">",
    "angles": "<" * (MAX_CHARS - 1),
    "entities": "<!DOCTYPE html [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><p>&b;</p>",
    "comments": "<!--" * 20_000,
    "nulls": "\0" * 1_000,
    "surrogate": "<p>\ud800</p>",
    "too long": "a " * MAX_CHARS,
    "many words": "<p>" + "a " * 30_000,
    "encoding": '<?xml version="1.0" encoding="utf-16"?><meta charset="utf-7"><p>+ADw-</p>',
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markup_scores_low_and_fast(name: str) -> None:
    assert value(SHOP, HOSTILE[name]) < 0.1
    assert grade(HOSTILE[name], SHOP).status in ("ok", "invalid_gold")


@pytest.mark.parametrize("gold", ["", "<!-- a -->", "<script>a</script>", "x" * (MAX_CHARS + 1)])
def test_a_gold_without_a_page_is_no_score(gold: str) -> None:
    assert grade(gold, SHOP).status == "invalid_gold"
