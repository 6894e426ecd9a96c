"""HTML: how much of the gold page the answer rebuilds, by the parsed tree and the text, both in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.markup import Page, parse_page, unfenced

_PAGE = """<!DOCTYPE html>
<html><head><title>Tea shop</title><style>h1 { color: green; } .price { font-weight: bold }</style></head>
<body><h1>Fine teas</h1>
<ul><li>Assam <span class="price">4</span></li><li>Sencha <span class="price">6</span></li></ul>
<p>Open daily from nine until five, except on Sundays.</p></body></html>"""
_REWRITTEN = """<HTML><!-- a shop --><TITLE>Tea   shop</TITLE>
<style>h1 {color: green;} .price {font-weight: bold}</style>
<H1>Fine teas</H1><script>alert(1)</script><ul><li>Assam <span class='price'>4</span>
<li>Sencha <span class=price>6</span></ul> <p>Open daily from nine until five, except on Sundays."""

EXAMPLES = (
    Example(
        _PAGE,
        right=(
            f"<answer>{_PAGE}</answer>",
            f"<answer>```html\n{_PAGE}\n```</answer>",
            f"<answer>{_REWRITTEN}</answer>",
            f"<answer>Here is the page:\n```html\n{_PAGE}\n```</answer>",
        ),
        wrong=(
            "<answer></answer>",
            "<answer><!-- Fine teas Assam Sencha --></answer>",
            "<answer><script>Fine teas Assam Sencha</script></answer>",
            "<answer><table><tr><td>Quarterly revenue</td></tr></table></answer>",
            "<answer>" + "<div>" * 20_000 + "</answer>",
            "<answer><a " + " ".join(f"a{i}=1" for i in range(15_000)) + "></answer>",
            "<answer>" + "<" * 90_000 + "</answer>",
            f"<answer>{_PAGE * 400}</answer>",
            f"<think>{_PAGE}</think>",
        ),
    ),
    Example(
        '<p class="b a" style="color: red; margin:0" id=x>one &amp; two<br>three</p>',
        right=("<answer><P ID='x' class='a b' style='margin: 0;COLOR:red'>one &#38; two<br/>three</answer>",),
        wrong=("<answer><img></answer>",),
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """Structure times content, each in [0, 1]; 1.0 for the same page.

    Both are `1 - (insertions + deletions) / (length of both)` of two sequences. Structure compares the Euler strings of
    the element trees (each element as an opening token, its attributes, its children, a closing token). The edit
    distance of Euler strings is within a factor of the tree edit distance (Akutsu 2006, Inf. Process. Lett. 100(3):
    from half of it, up to 2h + 1 for trees of height h), and takes time that a thousand-element page can afford.
    Content compares the words of the page. Since both keep the order, a shuffled page loses in both; since they are
    multiplied, the tags that all pages share earn nothing without the text, nor a heap of words without the tags.

    The page is parsed, so that spelling, quotes, optional tags and the order of attributes do not matter. Scripts,
    comments and `meta` are left out; a `style` sheet and `class` and `style` attributes belong to the structure.
    """
    gold = parse_page(unfenced(answer))
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not a page, or over the size caps")
    got = parse_page(unfenced(prediction))
    if got is None:
        return graded(0.0, "nothing on the page, or it is over the size caps", structure=0.0, content=0.0)
    structure, content = _similarity(got.structure, gold.structure), _content(got, gold)
    value = structure * content
    return graded(value, f"structure {structure:.3f}, content {content:.3f}", structure=structure, content=content)


def _content(got: Page, gold: Page) -> float:
    if gold.words:
        return _similarity(got.words, gold.words)
    # Nothing to compare: words that should not be there weigh as much as the tokens of the page.
    tokens = len(gold.structure)
    return tokens / (tokens + len(got.words))


def _similarity(one: list[str], other: list[str]) -> float:
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(one, other))


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load lxml and rapidfuzz."""
    _similarity(["a"], ["a"])
    parse_page("<p>a</p>")
