"""Stage ``report``."""

from __future__ import annotations

import numpy as np

from medseg.core.files import write_json
from medseg.core.run import Run
from medseg.core.stage import artifact_of
from medseg.evaluation.pairs import score_pair
from medseg.evaluation.policy import Scoring
from medseg.evaluation.summary import summarise
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.imaging.labels import labels
from medseg.stages.report import report

LABELS = labels(organ=1)
GRID = Grid.from_spacing((20, 20, 8), (1, 1, 2))


def test_the_page_is_made_from_artifacts_once_and_shows_them(tmp_path):
    array = np.zeros((1, *GRID.shape), np.uint8)
    array[0, 5:12, 5:12, 2:6] = 1
    mask, item, rows = Image(array, GRID), {}, []
    for case in ("a", "b"):
        folder = tmp_path / "raw" / case
        write_image(Image(array.astype(np.float32) * 50, GRID), folder / "image.nii.gz")
        write_image(mask, folder / "reference.nii.gz")
        write_json(folder / "source.json", {"case": case, "patient": case, "channels": ["T1"]})
        item[f"ingest/{case}"] = artifact_of(folder)
        rows += score_pair(mask, mask, LABELS, Scoring(), case)
    write_image(mask, tmp_path / "mask" / "mask.nii.gz")
    item["mask/a"] = artifact_of(tmp_path / "mask")
    history = {"fold0": "epoch,loss\n1,0.5\n2,0.4\n"}
    content = {"title": "Study", "rows": rows, "summary": summarise(rows), "histories": history}
    run = Run(tmp_path / "run")
    done = run.map(report, {"page": item}, content=content, labels=LABELS)
    page = (done["page"] / "index.html").read_text()
    assert page.count('<article class="case"') == 2
    assert page.count("Error map: what is missed") == 1  # only one of them has a prediction
    assert "Training" in page
    assert str(tmp_path) not in page
    assert run.map(report, {"page": item}, content=content, labels=LABELS).kept == ["page"]
