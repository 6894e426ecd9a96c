"""Pictures of flat, saturated shapes on a light ground.

Lengths are in thousandths of the picture's side, so a scene looks the same at every size. Shapes are drawn five times
too large and box-averaged: edges that fall between pixels come out grey instead of jumping to the next pixel.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

ShapeName = Literal["disc", "square", "triangle"]

SUPERSAMPLE = 5
FULL = 1000
"""Side of the picture in scene units."""

SHAPES: tuple[ShapeName, ...] = ("disc", "square", "triangle")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 25, 25),
    "green": (20, 160, 40),
    "blue": (30, 60, 230),
    "orange": (255, 150, 0),
}
CELLS = 4
"""Scenes stand on a grid of 4 x 4 cells; at 64 pixels a cell is one visual token of a model with patches of 8."""
GROUNDS: tuple[tuple[int, int, int], ...] = ((255, 255, 255), (248, 244, 232), (236, 244, 250), (240, 240, 240))


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape that fills the box from (x, y) to (x + side, y + side), in thousandths of the picture's side."""

    kind: ShapeName
    color: str
    x: int
    y: int
    side: int

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.x, self.y, self.x + self.side, self.y + self.side

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.side / 2, self.y + self.side / 2

    @property
    def cell(self) -> tuple[int, int]:
        """Column and row of the centre on the grid, (0, 0) top left."""
        cx, cy = self.centre
        return int(cx * CELLS // FULL), int(cy * CELLS // FULL)

    @property
    def placed(self) -> str:
        """`red disc (3,1)`: the name with the cell's column and row."""
        column, row = self.cell
        return f"{self.name} ({column},{row})"


def draw_shapes(shapes: tuple[Shape, ...], size: int, ground: tuple[int, int, int]) -> bytes:
    """PNG of `size` x `size` pixels with the shapes in order, later ones on top."""
    image = Image.new("RGB", (size * SUPERSAMPLE, size * SUPERSAMPLE), ground)
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        x1, y1, x2, y2 = (value * size * SUPERSAMPLE / FULL for value in shape.box)
        fill = COLORS[shape.color]
        if shape.kind == "disc":
            pen.ellipse((x1, y1, x2 - 1, y2 - 1), fill=fill)
        elif shape.kind == "square":
            pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill)
        else:
            pen.polygon((((x1 + x2) / 2, y1), (x2 - 1, y2 - 1), (x1, y2 - 1)), fill=fill)
    return encode_png(image.reduce(SUPERSAMPLE))


def place_shapes(rng: random.Random, count: int) -> tuple[Shape, ...]:
    """`count` (at most 4) shapes of different colors, each filling a cell of its own."""
    colors = rng.sample(sorted(COLORS), count)
    side = FULL // CELLS
    cells = rng.sample(range(CELLS**2), count)
    return tuple(
        Shape(rng.choice(SHAPES), color, cell % CELLS * side, cell // CELLS * side, side)
        for color, cell in zip(colors, cells, strict=True)
    )


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes without metadata: the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def scene_key(shapes: tuple[Shape, ...]) -> str:
    """The content of a scene, whatever the order in which it was drawn up."""
    return ";".join(sorted(f"{s.kind},{s.color},{s.x},{s.y},{s.side}" for s in shapes))
