"""``medseg export``: whole or not at all, nothing of a patient in it, a folder for each fold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.core.errors import MedsegError
from medseg.core.files import read_json, sha256_of
from medseg.learning.exporting import EXPORTS
from medseg.workflows.exporting import export
from medseg.workflows.subjects import open_subject

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai.*")


def write_half(model, out: Path) -> dict[str, float]:
    """A form of the user's own: one file, or a failure half way when it is told to fail."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "weights.txt").write_text(model.about["weights_sha256"])
    if "fail" in str(out):
        raise MedsegError("it does not compute what the model computes")
    return {}


OWN = f"{__name__}:write_half"


def test_the_verb_writes_a_bundle_and_says_what_it_wrote(tiny_run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "bundle"
    assert main(["export", str(tiny_run), str(out), "--to", "bundle", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((out / "export.json").read_text())
    assert {"configs/metadata.json", "configs/inference.json", "models/model.pt"} <= set(said["files"])
    assert all(sha256_of(out / name) == digest for name, digest in said["files"].items())
    assert said["facts"]["."]["largest_difference"] < 1e-3


def test_a_bundle_knows_its_training_images_until_its_weights_are_changed(
    tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    export(tiny_run, out)
    told = open_subject(out).training
    card = read_json(tiny_run / "train" / "fold0" / "model" / "card.json")["training_data"]
    assert told["seen"] == [card["seen"]]
    assert told["ranges"] == card["ranges"]
    with (out / "models" / "model.pt").open("ab") as file:
        file.write(b"x")
    assert open_subject(out).training == {}


def test_nothing_of_a_patient_and_no_path_is_in_a_bundle(tiny_run: Path, tmp_path: Path) -> None:
    export(tiny_run, tmp_path / "bundle")
    cases = json.loads((tiny_run / "cohort.json").read_text())["cases"]
    ids = {str(word) for case in cases for word in (case["id"], case["patient"])}
    for file in (f for f in (tmp_path / "bundle").rglob("*") if f.is_file()):
        text = file.read_bytes().decode("latin-1")
        assert not [word for word in ids if word in text]
        assert str(tmp_path) not in text and str(tiny_run) not in text and str(Path.home()) + "/" not in text
        assert not re.search(r"20\d\d-\d\d-\d\d", text)


def test_several_folds_get_a_folder_each(tiny_run: Path, tmp_path: Path) -> None:
    for fold in ("fold0", "fold3"):
        shutil.copytree(tiny_run / "train" / "fold0", tmp_path / "run" / "train" / fold)
    done = export(tmp_path / "run", tmp_path / "out", to=OWN)
    assert sorted(done.summary["facts"]) == ["fold0", "fold3"] and len(done.summary["models"]) == 2
    assert sorted(done.summary["files"]) == ["fold0/weights.txt", "fold3/weights.txt"]
    assert "2 models, a folder each (fold0, fold3)" in done.text


def test_an_export_is_replaced_and_nothing_else_is(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first = export(tiny_run, out, to=OWN)
    assert export(tiny_run, out, to=OWN).summary == first.summary
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MedsegError, match="holds something else"):
        export(tiny_run, out, to=OWN)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(MedsegError, match="must not lie in the folder of its model"):
        export(tiny_run, tiny_run / "train" / "fold0" / "bundle", to=OWN)


def test_what_fails_half_way_leaves_what_was_there(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="does not compute"):
        export(tiny_run, tmp_path / "fail", to=OWN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--to", "keras"], []])
def test_a_wrong_form_and_a_folder_without_model_are_usage_errors(words, tmp_path: Path, capsys) -> None:
    try:
        code = main(["export", str(tmp_path), str(tmp_path / "out"), *words])
    except SystemExit as end:
        code = end.code
    assert code == 2 and capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_line_offers_every_form() -> None:
    from medseg.cli import VERBS

    (to,) = (argument for argument in VERBS["export"][1] if "--to" in argument.names)
    assert to.options["choices"] == list(EXPORTS)
