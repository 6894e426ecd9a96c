"""SVG made safe to render: only shapes are kept, and what they would cost is bounded before a renderer sees them.

The renderer is native code, which a picture can make run for minutes or end the process: copies of copies, a pattern
tile of a terabyte, a million dashes, a line wider than the numbers hold. Kept are shapes, groups, copies, gradients,
clips, masks, markers and style sheets. Left out are text and everything that carries it, images and other references
out of the document, scripts, animations and filters; patterns become plain grey.
"""

from __future__ import annotations

import re
from typing import Any

from rewards.markup import unfenced
from rewards.svg_cost import CANVAS, DASHES, GROUPS, HREF, SHAPES, SVG_NS, is_affordable, local_name

MAX_CHARS = 200_000
MAX_ELEMENTS = 5_000
MAX_ATTRIBUTES = 200
"""Of one element: the parser's time grows with their square."""

_KEPT = SHAPES | GROUPS | {"linearGradient", "radialGradient", "stop", "style"}
_DROPPED_ATTRIBUTES = frozenset(
    {"filter", "font", "font-size", "pathLength", "requiredFeatures", "requiredExtensions", "systemLanguage"}
)

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_START = re.compile(r"<svg[\s>]")
_END = "</svg>"
_ATTRIBUTE = re.compile(r"=\s*[\"']")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_VIEW_BOX = re.compile(rf"\s*{_NUMBER}(?:(?:\s*,\s*|\s+){_NUMBER}){{3}}\s*")
_RULE = r"(?<![\w-])(?:{})\s*:[^;}}]*"
_DROPPED_RULES = re.compile(_RULE.format(r"filter|transform|font|font-size"))
_MARKER_RULES = re.compile(_RULE.format(r"marker(?:-\w+)?"))
_REFERENCE_RULES = re.compile(_RULE.format(r"mask|clip-path|marker(?:-\w+)?"))


def clean(text: str) -> str | None:
    """The drawing in an answer as SVG of `CANVAS` x `CANVAS` pixels that is safe to render.

    None where there is no well-formed `<svg>` element, or the drawing would cost too much. Declarations of name spaces
    may be missing, as browsers allow within HTML.
    """
    root = _parse(text)
    if root is None:
        return None
    from lxml import etree

    elements = _keep_drawing(root)
    _fit_to_canvas(root)
    if len(elements) > MAX_ELEMENTS:
        return None
    if not is_affordable(root, elements) and not (_drop_dashes(elements) and is_affordable(root, elements)):
        return None
    return str(etree.tostring(root, encoding="unicode"))


def _parse(text: str) -> Any | None:
    if len(text) > MAX_CHARS:
        return None
    text = _COMMENT.sub("", unfenced(text))
    start, end = _START.search(text), text.rfind(_END)
    if start is None or end < start.end() or "<!ENTITY" in text:
        return None
    source = text[start.start() : end + len(_END)]
    if any(len(_ATTRIBUTE.findall(tag)) > MAX_ATTRIBUTES for tag in source.split("<")):
        return None
    head = source[: source.find(">")]
    declared = "" if re.search(r"\sxmlns\s*=", head) else f' xmlns="{SVG_NS}"'
    if "xlink:" in source and "xmlns:xlink" not in source:
        declared += ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    source = "<svg" + declared + source[4:]
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        root = etree.fromstring(source.encode("utf-8", "replace"), parser=parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    return root if local_name(root) == "svg" else None


def _keep_drawing(root: Any) -> list[Any]:
    """Take out of the tree what is not drawn here; returns the elements that are left, in document order."""
    from lxml import etree

    for element in list(root.iter()):
        name = local_name(element)
        if name == "pattern":
            _paint_grey(element)
        elif name not in _KEPT and element.getparent() is not None:
            element.getparent().remove(element)
    elements = list(root.iter())
    for element in elements:
        element.tail = None
        if local_name(element) == "style":
            # A sheet may give every element a mask; those are kept only where an element asks for them itself.
            element.text = _REFERENCE_RULES.sub("", _DROPPED_RULES.sub("", element.text or ""))
        else:
            element.text = None
            _clean_attributes(element)
    etree.cleanup_namespaces(root, keep_ns_prefixes=["xlink"])
    return elements


def _paint_grey(pattern: Any) -> None:
    """Turn a pattern into a gradient of one colour, so that what is filled with it is still seen."""
    from lxml import etree

    name = pattern.get("id")
    for child in list(pattern):
        pattern.remove(child)
    pattern.attrib.clear()
    pattern.tag = f"{{{SVG_NS}}}linearGradient"
    if name is not None:
        pattern.set("id", name)
    etree.SubElement(pattern, f"{{{SVG_NS}}}stop").set("stop-color", "#808080")


def _clean_attributes(element: Any) -> None:
    container = local_name(element) not in SHAPES
    for key, value in list(element.attrib.items()):
        leaves = key in ("href", HREF) and not value.strip().startswith("#")
        marks_many = container and key.startswith("marker") and "url(" in value  # inherited by all shapes inside
        if leaves or marks_many or key in _DROPPED_ATTRIBUTES:
            del element.attrib[key]
    style = element.get("style")
    if style is not None:
        style = _DROPPED_RULES.sub("", style)
        element.set("style", _MARKER_RULES.sub("", style) if container else style)
    if not _is_view_box(element.get("viewBox", "")):
        element.attrib.pop("viewBox", None)  # as a renderer takes it


def _is_view_box(text: str) -> bool:
    return _VIEW_BOX.fullmatch(text) is not None and all(float(side) > 0 for side in re.findall(_NUMBER, text)[2:])


def _fit_to_canvas(root: Any) -> None:
    """Give the root the size of the canvas and, where it is missing, the view box that its own size stands for."""
    if root.get("viewBox") is None:
        width, height = _length(root.get("width")) or 300.0, _length(root.get("height")) or 150.0  # as browsers do
        root.set("viewBox", f"0 0 {width:g} {height:g}")
    for key in ("x", "y"):
        root.attrib.pop(key, None)
    for key in ("width", "height"):
        root.set(key, str(CANVAS))


def _length(text: str | None) -> float | None:
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d{0,9})?)\s*(?:px)?\s*", text or "")
    value = float(match.group(1)) if match is not None else 0.0
    return value if value > 0 else None


def _drop_dashes(elements: list[Any]) -> bool:
    """Draw every line solid; False where all were."""
    found = False
    for element in elements:
        found |= element.attrib.pop("stroke-dasharray", None) is not None
        style = element.get("style", "")
        if DASHES.search(style):
            element.set("style", DASHES.sub("", style))
            found = True
        if local_name(element) == "style" and DASHES.search(element.text or ""):
            element.text = DASHES.sub("", element.text)
            found = True
    return found
