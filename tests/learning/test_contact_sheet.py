"""The picture of what augmentation does shows the patches that training sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.data.plan import Intensity, Plan
from medseg.imaging.labels import labels
from medseg.learning import contact_sheet as sheet
from medseg.learning.pace import _noise_case
from medseg.learning.settings import Augmenting, Training

PLAN = Plan(
    channels=("T1", "T2"),
    labels=labels(organ=1, lesion=2),
    spacing_mm=(1.0, 1.0, 2.0),
    patch=(16, 24, 8),
    batch=2,
    intensity={"T1": Intensity(name="zscore"), "T2": Intensity(name="zscore")},
    network="unet",
)
STILL = Augmenting(rotation_deg=0, scale=0, shift=0, contrast=0, brightness=0, noise=0, field=0)


@pytest.mark.parametrize("patch", [(16, 24, 8), (16, 24, 1)])
def test_without_augmentation_every_version_is_the_patch_as_it_is(
    patch: tuple[int, int, int], tmp_path: Path
) -> None:
    plan = PLAN.but(patch=patch)
    case = _noise_case(plan, tmp_path / "a", 0)
    still, moved = Training(augment=STILL), Training()
    rows = sheet._rows(sheet._drawn(case, plan, still), plan, still, 3)
    assert len(rows) == len(plan.channels)
    for row in rows:
        (first, mask), *others = row
        assert first.shape == (24, 16), "the second axis points up"
        for grey, labelled in others:
            np.testing.assert_allclose(grey, first, atol=2e-3)
            assert (labelled == mask).mean() > 0.99
    changed = sheet._rows(sheet._drawn(case, plan, moved), plan, moved, 1)
    assert not np.allclose(changed[0][1][0], changed[0][0][0], atol=0.1)


def test_the_picture_has_a_row_a_case_and_channel_and_is_the_same_again(tmp_path: Path) -> None:
    from matplotlib.image import imread

    cases = [_noise_case(PLAN, tmp_path / name, n) for n, name in enumerate("ab")]
    first = sheet.draw_augmentation(cases, PLAN, Training(), tmp_path / "first.png", versions=2)
    again = sheet.draw_augmentation(cases, PLAN, Training(), tmp_path / "again.png", versions=2)
    assert first.read_bytes() == again.read_bytes()
    height, width = imread(first).shape[:2]
    assert height > width, "four rows of three tiles"


def test_a_legend_tells_the_colours_of_the_labels(tmp_path: Path) -> None:
    case, training = _noise_case(PLAN, tmp_path / "a", 0), Training(augment=STILL)
    rows = sheet._rows(sheet._drawn(case, PLAN, training), PLAN, training, 1)
    (legend,) = sheet._figure(rows, ["a", "b"], ["as it is", "1"], PLAN).legends
    assert [text.get_text() for text in legend.get_texts()] == ["organ", "lesion"]
    assert [line.get_color() for line in legend.get_lines()] == [x.shown_colour() for x in PLAN.labels]
