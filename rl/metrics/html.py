"""Small pieces of HTML for the report. Everything that comes from a run is escaped here."""

from __future__ import annotations

import base64
import binascii
import html
from collections.abc import Iterable, Sequence
from typing import Any

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #222; background: #fff;
       max-width: 940px; margin: 2rem auto 4rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } 
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #eee; }
th { color: #555; font-weight: 600; font-size: .85rem; } th:first-child, td:first-child { text-align: left; }
tr.total td { font-weight: 600; border-top: 1px solid #999; }
nav a { margin-right: .9rem; color: #0072B2; }
figure { margin: .8rem 0 1.4rem; } figure img { width: 100%; height: auto; display: block; }
figcaption, .muted { color: #555; font-size: .9rem; }
.note { color: #555; background: #f6f6f4; border-left: 3px solid #bbb; padding: .4rem .8rem; margin: .6rem 0; }
.bad { color: #a33e00; font-weight: 600; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8rem; margin: 1rem 0; }
.facts div { background: #f6f8fa; padding: .6rem .8rem; border-radius: 6px; }
.facts b { display: block; font-size: 1.25rem; white-space: nowrap; } .facts span { color: #555; font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace;
      margin: 0; }
details > pre { background: #f6f8fa; padding: .8rem; } summary { cursor: pointer; }
.example { border: 1px solid #ddd; border-radius: 6px; padding: .8rem; margin: 1rem 0; }
.example .question { display: flex; gap: 1rem; align-items: flex-start; margin-bottom: .6rem; }
.example img { max-width: 260px; max-height: 260px; border: 1px solid #ddd; image-rendering: auto; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; } .sides > div { min-width: 0; }
.completion { border-left: 4px solid #bbb; background: #f7f7f7; padding: .35rem .6rem; margin: .4rem 0; }
.completion.right { border-color: #0072B2; background: #eaf3fa; } 
.completion.part { border-color: #56B4E9; background: #f1f8fd; }
.completion.wrong { border-color: #D55E00; background: #fdf1ea; } .completion b { font-size: .8rem; color: #444; }
@media (max-width: 640px) { .sides { grid-template-columns: 1fr; } .example .question { flex-direction: column; } }
"""

_SIGNATURES = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"))


def text(value: Any) -> str:
    """Escaped text, safe in content and in quoted attributes."""
    return html.escape(str(value), quote=True)


def page(title: str, body: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{text(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    return f'<section id="{text(anchor)}">\n<h2>{text(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], total: Sequence[Any] | None = None) -> str:
    """A table of escaped cells; `total` is set apart at the end."""
    head = "".join(f"<th>{text(cell)}</th>" for cell in header)
    lines = ["<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    if total is not None:
        lines.append('<tr class="total">' + "".join(f"<td>{text(cell)}</td>" for cell in total) + "</tr>")
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>\n</table>"


def note(message: str) -> str:
    return f'<p class="note">{text(message)}</p>'


def plot(uri: str, title: str, caption: str) -> str:
    """A figure; `uri` is a `data:` URI of our own making."""
    return f'<figure><img src="{uri}" alt="{text(title)}"><figcaption>{text(caption)}</figcaption></figure>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    return (
        '<div class="facts">'
        + "".join(f"<div><b>{text(v)}</b><span>{text(k)}</span></div>" for k, v in pairs)
        + "</div>"
    )


def image(encoded: str) -> str:
    """An inline image from base64 text of an encoded file; a note where the text is not an image."""
    try:
        head = base64.b64decode(encoded, validate=True)[:4]
    except (binascii.Error, ValueError):
        return note("image could not be shown: not base64")
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return f'<img src="data:image/{kind};base64,{encoded}" alt="image of the problem">'
    return note("image could not be shown: not PNG, JPEG, GIF or WebP")
