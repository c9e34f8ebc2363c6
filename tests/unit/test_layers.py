"""images/layers.svg, the picture in the README, shows the images of the matrix, each on its parent."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.support.matrix import ROOT, matrix

SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> dict[str, tuple[int, int, int, int]]:
    """Each image's left, top, right and bottom. A rectangle's title follows it, and may name several."""
    found: dict[str, tuple[int, int, int, int]] = {}
    for group in ElementTree.parse(ROOT / "images/layers.svg").iter(f"{SVG}g"):
        for rect, title in zip(group, list(group)[1:], strict=False):
            if rect.get("class") == "ours":
                x, y, width, height = (int(rect.attrib[name]) for name in ("x", "y", "width", "height"))
                found |= dict.fromkeys((title.text or "").split(", "), (x, y, x + width, y + height))
    return found


def test_the_picture_of_the_layers_matches_the_matrix() -> None:
    boxes = drawn()
    parents = {cell.image: cell.parent for cell in matrix()}
    assert boxes.keys() == parents.keys()
    for image, parent in parents.items():
        *_, last = re.findall(r"^FROM (\S+)", (ROOT / f"images/{image}/Dockerfile").read_text(), re.M)
        if parent and last == "${PARENT}":
            (left, _, right, bottom), (parents_left, top, parents_right, _) = boxes[image], boxes[parent]
            assert bottom < top <= bottom + 10 and parents_left <= left < right <= parents_right, image
