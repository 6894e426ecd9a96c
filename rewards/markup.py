"""HTML taken apart for comparing: the parsed tree as a sequence of tags and attributes, and the words in order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_CHARS = 100_000
MAX_TOKENS = 20_000
MAX_TAG_PARTS = 3_000
"""White space, quotes and slashes within one tag: the parser's time grows with the square of its attributes."""

_FENCE = re.compile(r"```[\w+-]{0,20}[ \t]*\n(.*?)```", re.DOTALL)
_TAG = re.compile(r"<[^<>]*")
_TAG_PART = re.compile(r"[\s\"'/]+")
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_END_OF_PAGE = re.compile(r"</(?:html|body)\s{0,8}>", re.IGNORECASE)
"""The parser drops what stands behind these, where browsers show it as part of the body."""
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\W{_EAST_ASIAN}]+")
_CSS_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
_CSS_TOKEN = re.compile(r"[{}]|[^{}:;,\s]+")
_SKIPPED = frozenset({"script", "noscript", "template", "meta", "base"})
"""Neither seen on the page nor part of its look."""
_GIVEN = frozenset({"html", "head", "body"})
"""In every parsed page, written or not, so that they say nothing about it."""
_SHOWN_ATTRIBUTES = ("alt", "placeholder", "value", "title", "label")


@dataclass(slots=True)
class Page:
    """A parsed page.

    Example:
        `<h1 class="big">Hi</h1>` has the structure ["<h1", ".big", "</h1"] and the words ["Hi"].
    """

    structure: list[str] = field(default_factory=list)
    """The Euler string of the element tree: each element as `<tag`, its attributes, what is in it, `</tag`."""
    words: list[str] = field(default_factory=list)
    """Text and shown attributes in document order; a letter at a time in scripts without spaces."""


def unfenced(text: str) -> str:
    """The content of the one code fence in an answer, else the answer."""
    blocks = _FENCE.findall(text) if "```" in text else []
    return blocks[0].strip() if len(blocks) == 1 else text.strip()


def parse_page(text: str) -> Page | None:
    """Parse HTML as leniently as browsers do; None where nothing is on the page, or it is over a cap."""
    if len(text) > MAX_CHARS or any(_too_many_parts(tag) for tag in _TAG.findall(text)):
        return None
    from lxml import etree, html

    parser = html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True)
    try:
        root = html.document_fromstring(_END_OF_PAGE.sub("", text).encode("utf-8", "replace"), parser=parser)
    except (etree.LxmlError, ValueError):  # nothing but comments or white space
        return None
    page = Page()
    for _ in _walk(root, page):
        if len(page.structure) + len(page.words) > MAX_TOKENS:
            return None
    return page if page.structure or page.words else None


def _walk(root: Any, page: Page) -> Iterator[None]:
    """Fill the page in document order; yields after each event so that the caller can stop a page that is too long."""
    from lxml import etree

    walker = etree.iterwalk(root, events=("start", "end"))
    for event, element in walker:
        tag = element.tag
        if event == "start":
            if tag in _SKIPPED:
                walker.skip_subtree()
                continue
            if tag not in _GIVEN:
                page.structure.append("<" + tag)
            page.structure += _attributes(element, page)
            if tag == "style":
                page.structure += _CSS_TOKEN.findall(_CSS_COMMENT.sub(" ", element.text or ""))
            else:
                page.words += _words(element.text)
        else:
            if tag not in _SKIPPED and tag not in _GIVEN:
                page.structure.append("</" + tag)
            page.words += _words(element.tail)
        yield


def _attributes(element: Any, page: Page) -> list[str]:
    """The attributes as tokens in alphabetical order; what a shown one says goes to the words of the page."""
    tokens: list[str] = []
    for name, value in sorted(element.attrib.items()):
        if name == "class":
            tokens += sorted({"." + word for word in value.split()})
        elif name == "style":
            declarations = (re.sub(r"\s+", "", part).casefold() for part in value.split(";"))
            tokens += sorted({f"style:{part}" for part in declarations if part})
        else:
            if name in _SHOWN_ATTRIBUTES:
                page.words += _words(value)
                value = ""
            tokens.append(f"{name}={' '.join(value.split())}")
    return tokens


def _words(text: str | None) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text)) if text else []


def _too_many_parts(tag: str) -> bool:
    return len(tag) > MAX_TAG_PARTS and len(_TAG_PART.findall(tag)) > MAX_TAG_PARTS
