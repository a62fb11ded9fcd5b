"""Maps in the report: where they are drawn, what is said, and nothing that a name could break."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image as Pil

from medseg.evaluation.report.heat import heat_uri
from medseg.evaluation.report.looked import figures, looked_of
from medseg.evaluation.report.overlays import planes
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image
from medseg.imaging.labels import labels

LABELS = labels(organ=1)
CHECK = {
    "faithful": False, "reason": "x", "gain": -0.01, "gain_interval": [-0.02, 0.0],
    "fractions": [0.0, 0.5, 1.0], "most_important_first": [0.9, 0.8, 0.5], "random_mean": [0.9, 0.7, 0.5],
    "random_range": [[0.9, 0.6, 0.5], [0.9, 0.8, 0.5]],
}  # fmt: skip
FACTS = {
    "target": "<b>organ", "method": "gradcam", "layer": "network.layer4", "probability": 0.9,
    "warnings": ["not better than random: x"], "faithfulness": CHECK,
}  # fmt: skip


def _scan(grid: Grid, at: tuple[int, int, int]) -> tuple[Image, Image]:
    grey = np.random.default_rng(0).normal(0, 1, (1, *grid.shape)).astype(np.float32)
    heat = np.zeros_like(grey)
    heat[(0, *at)] = 1
    return Image(grey, grid), Image(heat, grid)


@pytest.mark.parametrize("shape", [(20, 16, 8), (20, 16, 1)])
def test_planes_go_through_the_peak_of_the_map(shape):
    image, heat = _scan(Grid.from_spacing(shape), (3, 12, shape[2] // 2))
    drawn, _ = planes(image, None, None, LABELS, heat=heat)
    assert len(drawn) == (1 if shape[2] == 1 else 3)
    assert all(p.heat is not None and p.heat.max() == 1 and p.heat.shape == p.grey.shape for p in drawn)


def test_a_map_in_another_axis_order_is_drawn_on_the_same_tissue():
    turned = Grid((8, 20, 16), np.array([[0, -1.0, 0, 0], [0, 0, 1.0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]))
    image, heat = _scan(turned, (2, 5, 9))
    image.array[:] = 0
    image.array[0, 2, 5, 9] = 50
    for plane in planes(image, None, None, LABELS, heat=heat)[0]:
        assert plane.heat is not None
        assert plane.heat.argmax() == plane.grey.argmax()


def test_the_strongest_evidence_is_the_most_opaque_and_none_is_clear():
    uri = heat_uri(np.array([[0.0, 0.5, 1.0]], np.float32))
    pixels = np.asarray(Pil.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert pixels[0, 0, 3] == 0
    assert pixels[0, 1, 3] < pixels[0, 2, 3] < 255


def test_the_verdict_and_its_reason_stand_beside_the_map():
    image, heat = _scan(Grid.from_spacing((12, 12, 4)), (3, 3, 2))
    one = looked_of("case<1>", image, heat, FACTS, labels=LABELS)
    page = figures([one])
    assert "not better than random</span>" in page
    assert "Not better than random: x." in page
    assert "Grad-CAM, layer layer4; probability 0.900" in page
    assert "<b>case&lt;1&gt;: &lt;b&gt;organ</b>" in page
    assert len(re.findall('class="heat"', page)) == 3
    assert page == figures([looked_of("case<1>", image, heat, FACTS, labels=LABELS)])
