"""Molecules: a skeleton with one or two substituents drawn by RDKit, to be read back as E-SMILES.

Substituents are written in a fixed order (the dummy `*` first) and the skeleton's atoms in a fixed order, so that a
picture has one likely spelling. Scoring does not depend on it.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from rl.data.synth.canvas import encode_png
from rl.data.synth.draft import Draft, answered

SUBSTITUENTS = ("*", "O", "N", "F", "Cl", "Br")
LABELS = ("R[1]", "R[2]", "X", "<dum>")
SKELETONS: dict[str, tuple[str, tuple[int, ...]]] = {
    # template with {0} at the first substituent and {n} at each other place; the places that may be filled
    "benzene": ("{0}c1c{1}c{2}c{3}cc1", (1, 2, 3)),
    "pyridine": ("{0}c1c{1}c{2}ncc1", (1, 2)),
    "thiophene": ("{0}c1c{1}c{2}c{3}s1", (1, 2, 3)),
    "cyclohexane": ("{0}C1C{1}C{2}C{3}CC1", (1, 2, 3)),
    "cyclobutane": ("{0}C1C{1}C{2}C1", (1, 2)),
    "ethane": ("{0}CC{1}", (1,)),
    "propane": ("{0}CC{1}C{2}", (1, 2)),
}

PADDINGS = (0.13, 0.17, 0.21, 0.25)
"""Shares of the side kept free, tried in turn: labels reach beyond the atoms that RDKit fits into the picture."""

FAINT = 40
"""Ink under this grey level on the outermost pixels is the soft edge of a line, not one cut off."""

PALETTE = {
    -1: (0.1, 0.1, 0.1),
    0: (0.6, 0.1, 0.75),
    7: (0.1, 0.2, 0.95),
    8: (0.9, 0.05, 0.05),
    9: (0.0, 0.65, 0.65),
    16: (0.75, 0.6, 0.0),
    17: (0.0, 0.6, 0.1),
    35: (0.6, 0.25, 0.0),
}
"""Atomic number -> RGB; -1 is every other element."""


@dataclass(frozen=True, slots=True)
class Structure:
    """`smiles` with its dummy, if it has one, at atom 0."""

    smiles: str
    label: str | None

    @property
    def esmiles(self) -> str:
        return self.smiles if self.label is None else f"{self.smiles}<sep><a>0:{self.label}</a>"


def make(rng: random.Random, image_size: int) -> Draft:
    """`Write the E-SMILES of the molecule.`; the split goes by the canonical structure without its label."""
    structure = make_structure(rng)
    angle = rng.choice((0, 180))
    shift = (rng.uniform(-1, 1), rng.uniform(-1, 1))
    return Draft(
        problem="<image>Write the E-SMILES of the molecule.",
        answers=(structure.esmiles,),
        key=canonical(structure.smiles),
        draw=lambda: draw_structure(structure, image_size, angle, shift),
        problem_type="science",
        answer_type="e-smiles",
        prompt_type="normal",
        solution=answered(structure.esmiles),
    )


def make_structure(rng: random.Random) -> Structure:
    """A skeleton with one (two in five) or two substituents, at most one of them a dummy."""
    template, places = SKELETONS[rng.choice(sorted(SKELETONS))]
    groups = [rng.choice(SUBSTITUENTS)]
    if rng.random() < 0.6:
        groups.append(rng.choice(SUBSTITUENTS[1:]))
    groups.sort(key=SUBSTITUENTS.index)
    filled = {rng.choice(places): groups[1]} if len(groups) == 2 else {}
    last = template.endswith("}")  # a chain's last place ends the string: no brackets there
    parts = [groups[0], "", "", ""]
    for place, group in filled.items():
        parts[place] = group if last and place == places[-1] else f"({group})"
    return Structure(template.format(*parts), rng.choice(LABELS) if groups[0] == "*" else None)


def canonical(smiles: str) -> str:
    """RDKit's canonical SMILES."""
    from rdkit import Chem

    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles)))


def draw_structure(structure: Structure, size: int, angle: int, shift: tuple[float, float]) -> bytes:
    """PNG of the molecule turned by `angle` degrees, heteroatoms large and in color, the label in place of `*`.

    `shift` (-1 to 1 each) moves it off the middle, by a sixteenth of the side at most and never over the border.
    """
    for padding in PADDINGS:
        image = _drawn(structure, size, angle, padding)
        frame = ImageOps.invert(image.convert("L"))
        frame.paste(0, (1, 1, size - 1, size - 1))
        if not any(frame.histogram()[FAINT:]):
            break
    return encode_png(_shifted(image, shift))


def _shifted(image: Image.Image, shift: tuple[float, float]) -> Image.Image:
    size = image.width
    ink = ImageOps.invert(image.convert("L")).point(lambda value: 255 if value >= FAINT else 0).getbbox()
    if ink is None or ink[0] < 1 or ink[1] < 1 or ink[2] > size - 1 or ink[3] > size - 1:
        return image
    left, top, right, bottom = ink
    across = _clamp(round(shift[0] * size / 16), 1 - left, size - 1 - right)
    down = _clamp(round(shift[1] * size / 16), 1 - top, size - 1 - bottom)
    moved = Image.new("RGB", image.size, (255, 255, 255))
    moved.paste(image, (across, down))
    return moved


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def _drawn(structure: Structure, size: int, angle: int, padding: float) -> Image.Image:
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    mol = Chem.MolFromSmiles(structure.smiles)
    if structure.label is not None:
        shown = "*" if structure.label == "<dum>" else structure.label.replace("[", "<sub>").replace("]", "</sub>")
        mol.GetAtomWithIdx(0).SetProp("atomLabel", shown)
    drawer = rdMolDraw2D.MolDraw2DCairo(size, size)
    options: Any = drawer.drawOptions()  # the stubs give every option the type of the whole
    options.rotate = float(angle)
    options.padding = padding
    options.fixedBondLength = 0.17 * size  # shorter where the molecule would not fit
    options.includeMetadata = False  # the PNG would carry the SMILES
    options.bondLineWidth = max(1, round(size / 40))
    options.scaleBondWidth = False
    options.fixedFontSize = max(10, round(size * 0.19))
    options.multipleBondOffset = 0.22
    options.setAtomPalette(PALETTE)
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
    drawer.FinishDrawing()
    return Image.open(io.BytesIO(drawer.GetDrawingText())).convert("RGB")
