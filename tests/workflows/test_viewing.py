"""``medseg view``: the report and its volumes, for one person on this machine, and nothing else."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing
from urllib.parse import urlsplit

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.core.files import write_json
from medseg.imaging.grid import Grid
from medseg.imaging.image import Image, write_image
from medseg.workflows.viewing import answers, what_to_show
from medseg.workflows.viewing_server import serving
from tests.browser import browsing, chromium

GRID = Grid.from_spacing((12, 10, 8))
ODD = "b 2#%"
SOFT = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


@pytest.fixture
def run(tmp_path):
    mask = np.zeros((1, *GRID.shape), np.uint8)
    mask[0, 3:8, 3:7, 2:6] = 3
    grey = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    for case in ("a1", ODD):
        folder = tmp_path / "run" / "ingest" / case
        write_image(Image(grey, GRID), folder / "image.nii.gz")
        write_image(Image(mask, GRID), folder / "reference.nii.gz")
    for stage in ("predict", "postprocess"):
        write_image(Image(mask, GRID), tmp_path / "run" / stage / "a1" / "mask.nii.gz")
    (tmp_path / "run" / "secret.txt").write_text("secret")
    page = (
        '<!doctype html>\n<html lang="en"><article class="case" id="case-1-a1" tabindex="-1" data-case="a1">'
    )
    (tmp_path / "run" / "report").mkdir()
    (tmp_path / "run" / "report" / "index.html").write_text(page)
    return tmp_path / "run"


def get(address, path="", method="GET", **headers):
    place = urlsplit(address)
    with closing(http.client.HTTPConnection(place.hostname, place.port, timeout=10)) as link:
        link.request(method, place.path + path, headers=headers)
        with closing(link.getresponse()) as answer:
            return answer.status, answer.read(), answer.headers


def test_a_run_shows_its_page_and_every_volume_of_its_cases(run):
    shown = what_to_show(run)
    assert {case: sorted(layers) for case, layers in shown.cases.items()} == {
        "a1": ["image", "prediction", "reference"],
        ODD: ["image", "reference"],
    }
    assert shown.cases["a1"]["prediction"].parent.parent.name == "postprocess"
    with serving(answers(shown)) as address:
        assert b'data-served="case/"' in get(address)[1]
        told = json.loads(get(address, "told/a1")[1])
        assert [layer["name"] for layer in told["layers"]] == ["image", "prediction", "reference"]
        assert told["labels"] == [{"value": 3, "name": "label 3", "colour": "#f6ae2d"}]
        assert told["anchor"] == "case-1-a1"
        assert (
            get(address, "volume/b%202%23%25/reference.nii.gz")[1]
            == shown.cases[ODD]["reference"].read_bytes()
        )
        status, body, headers = get(address, "case/a1")
        assert status == 200
        assert b"niivue" in body
        assert "default-src 'none'" in headers["Content-Security-Policy"]


OUTSIDE = (
    *("secret.txt", "../secret.txt", "%2e%2e/secret.txt", "volume/a1/../../secret.txt", "//etc/passwd"),
    *("volume/", "volume/a1/mask.nii.gz", "volume/%2fetc/passwd", "case/", "case/c9", "ingest/"),
    "vendor/niivue.umd.js",
)


def test_nothing_else_can_be_asked_for(run):
    with serving(answers(what_to_show(run))) as address:
        assert [get(address, path)[:2] for path in OUTSIDE] == [(404, b"")] * len(OUTSIDE)


def test_without_the_token_or_under_another_name_there_is_nothing(run):
    with serving(answers(what_to_show(run))) as address:
        place = urlsplit(address)
        assert place.hostname == "127.0.0.1"
        assert len(place.path) > 24
        bare = f"http://{place.netloc}"
        assert [get(bare, path)[0] for path in ("/", "/index.html", "/wrong/")] == [404] * 3
        assert get(address, Host="evil.example")[0] == 404
        assert get(address, method="POST")[0] == 501
        assert get(address, method="HEAD")[:2] == (200, b"")


def test_labels_come_from_the_cohort_or_are_given(run):
    write_json(run / "cohort.json", {"labels": [{"value": 3, "name": "kidney", "colour": "#112233"}]})
    assert [label.name for label in what_to_show(run).labels] == ["kidney"]
    assert [label.name for label in what_to_show(run, labels="mass=3").labels] == ["mass"]


def test_a_case_a_file_and_folders_beside_a_report_are_places_too(run):
    assert what_to_show(run / "ingest" / "a1").first == "a1"
    assert what_to_show(run / "report").page == run / "report" / "index.html"
    image = run / "ingest" / "a1" / "image.nii.gz"
    alone = what_to_show(image)
    assert (alone.first, dict(alone.cases)) == ("image", {"image": {"image": image}})
    masked = what_to_show(image, prediction=run / "predict" / "a1" / "mask.nii.gz")
    assert sorted(masked.cases["image"]) == ["image", "prediction"]
    beside = what_to_show(run / "report" / "index.html", prediction=run / "predict")
    assert beside.cases["a1"]["prediction"].parent.parent.name == "predict"


def test_what_holds_nothing_is_refused(run, tmp_path):
    for place, more in ((tmp_path / "none", {}), (tmp_path / "run" / "predict", {}), (run, {"case": "c9"})):
        with pytest.raises(MedsegError):
            what_to_show(place, **more)


def test_the_library_served_is_the_one_its_notice_names():
    import hashlib
    from importlib.resources import files

    vendor = files("medseg.evaluation.report") / "vendor"
    said = re.search(r"sha256 `([0-9a-f]{64})`", (vendor / "README.md").read_text())
    assert said
    assert hashlib.sha256((vendor / "niivue.umd.js").read_bytes()).hexdigest() == said[1]
    assert "BSD 2-Clause" in (vendor / "LICENCES.txt").read_text()


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_a_browser_shows_image_reference_and_prediction_and_asks_nobody_else(run, tmp_path):
    with serving(answers(what_to_show(run))) as address, browsing(tmp_path, *SOFT) as tab:
        tab.open(address + "case/a1")
        tab.wait_for(lambda: tab.ask("document.body.dataset.ready || document.getElementById('said').textContent.includes('WebGL')"))  # fmt: skip  # noqa: E501
        assert tab.ask("document.body.dataset.ready") in ("3", None)
        assert [p for p in tab.problems if "GL Driver" not in p] == []
        assert [a for a in tab.asked if not a.startswith((address, "data:", "blob:", "about:"))] == []
