"""Pictures of drawings: rendered small, and compared by how much of one the other explains."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewards.svg_cost import CANVAS

if TYPE_CHECKING:
    import numpy as np

    Picture = np.ndarray[Any, np.dtype[np.floating[Any]]]
    """float32 [CANVAS, CANVAS, channels], values in [0, 1]."""

SCALES = (1, 2, 4, 8, 16, 32)
"""Sides in pixels of the blocks whose means are compared, each twice the one before."""
EDGE = 0.06
"""Step between neighbouring pixels, of 1, from which there is an edge: well above rounding, below a pale grey line."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much of a picture another explains, each in [0, 1]; see `likeness`."""

    colour: float
    shape: float

    @property
    def value(self) -> float:
        return (self.colour + self.shape) / 2


def render(svg: str, *, backdrop: str = "white") -> Picture | None:
    """The picture of a drawing that `rewards.svg.clean` has passed, None where the renderer refuses it."""
    import numpy as np
    import resvg_py
    from PIL import Image

    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, background=backdrop, skip_system_fonts=True)
    except ValueError:
        return None
    except BaseException as exc:
        # A panic in the renderer is no Exception, so that nobody catches it by chance; here it is one more bad picture.
        if type(exc).__name__ != "PanicException":
            raise
        return None
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    return pixels if pixels.shape == (CANVAS, CANVAS, 3) else None


def is_blank(picture: Picture) -> bool:
    """True for a picture of one colour."""
    return bool(_edges(picture).max() == 0.0)


def likeness(picture: Picture, gold: Picture) -> Likeness:
    """The share of a gold picture's variance that another picture explains, in colours and in edges.

    For a scale s both pictures are averaged over blocks of s x s pixels, and

        R2_s = 1 - sum (picture_s - gold_s)^2 / sum (gold_s - mean(gold_s))^2

    is clipped to [0, 1]. The colour likeness is the mean of R2_s over `SCALES`; the shape likeness is the same of the
    maps of edges, where any colour gives the same edge. A picture of a single colour c has R2_s <= 0 whatever c is,
    because no constant is nearer to a set of numbers than their mean: an empty canvas earns exactly nothing, however
    much of the gold picture is background, where a plain mean squared error or SSIM would give it most of the points.
    The coarse scales forgive a line that is off by some pixels, the fine ones ask for it in its place.

    Normalising by the picture's own variance and adding edges follow the rewards of Rodriguez et al. 2025 (rendering-
    aware RL for SVG, arXiv 2505.20793), which normalise both pictures and take edges by Canny.
    """
    return Likeness(_explained(picture, gold), _explained(_edges(picture), _edges(gold)))


def _explained(picture: Picture, gold: Picture) -> float:
    total, count = 0.0, 0
    ours, theirs = picture, gold
    for scale in SCALES:
        if scale > 1:
            ours, theirs = _halved(ours), _halved(theirs)
        variance = float(((theirs - theirs.mean(axis=(0, 1))) ** 2).sum())
        if variance * scale**2 < 1e-6:
            continue
        error = float(((ours - theirs) ** 2).sum())
        total += min(1.0, max(0.0, 1.0 - error / variance))
        count += 1
    return total / count if count else 0.0


def _halved(picture: Picture) -> Picture:
    """The means of blocks of 2 x 2 pixels."""
    rows = picture[::2] + picture[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) / 4


def _edges(picture: Picture) -> Picture:
    """1.0 where a pixel differs from the next one to the right or below, else 0.0; one channel."""
    import numpy as np

    edges = np.zeros((CANVAS, CANVAS, 1), dtype=np.float32)
    for channel in range(picture.shape[2]):
        values = picture[:, :, channel]
        edges[:, :-1, 0] += np.abs(values[:, 1:] - values[:, :-1]) > EDGE
        edges[:-1, :, 0] += np.abs(values[1:] - values[:-1]) > EDGE
    return np.minimum(edges, np.float32(1))
