"""A recipe that begins from other weights: found, adopted, told of, tuned, compared with its twin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medseg.cli import main
from medseg.core.config import load_config
from medseg.core.run import Run
from medseg.data.plan import Intensity, Plan
from medseg.imaging.labels import labels
from medseg.workflows.settings import TrainSettings
from medseg.workflows.training import train
from tests.conftest import QUICK


def _settings(tiny_msd: Path, *words: str) -> TrainSettings:
    given = [f"cohort.root={tiny_msd}", "split.folds=1", "split.test=0.3", "tracking.enabled=false"]
    return load_config(TrainSettings, None, [*given, *QUICK, *words])


@pytest.fixture(scope="module")
def source(tiny_msd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network differs from what the plan would choose."""
    run = Run(tmp_path_factory.mktemp("source"), quiet=True)
    words = ["plan.network_arguments.widths=[4,6]", "plan.network_arguments.norm=instance"]
    assert train(_settings(tiny_msd, *words), run, "cpu").exit_code == 0
    run.close()
    return run.root


@pytest.fixture(scope="module")
def tuned(tiny_msd: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that begins from it, with its twin."""
    run = Run(tmp_path_factory.mktemp("tuned"), quiet=True)
    settings = _settings(tiny_msd).but(
        plan={}, transfer={"source": str(source), "twin": True, "licence": "CC BY 4.0"}
    )
    outcome = train(settings, run, "cpu")
    run.close()
    assert outcome.exit_code == 0
    return run.root, outcome.text


def test_the_network_of_the_weights_is_taken_and_filled(tuned: tuple[Path, str], source: Path) -> None:
    card = json.loads((tuned[0] / "train/fold0/model/card.json").read_text())
    plan = json.loads((tuned[0] / "train/fold0/model/plan.json").read_text())
    assert plan["network_arguments"]["widths"] == [4, 6]
    assert plan["network_arguments"]["norm"] == "instance"
    assert card["start"]["share"] == 1
    assert card["start"]["licence"] == "CC BY 4.0"
    there = json.loads((source / "train/fold0/model/card.json").read_text())
    assert card["start"]["sha256"] == there["weights_sha256"]


def test_the_twin_is_trained_on_the_same_cases_and_compared(tuned: tuple[Path, str]) -> None:
    root, text = tuned
    twin = json.loads((root / "scratch/train/fold0/model/card.json").read_text())
    card = json.loads((root / "train/fold0/model/card.json").read_text())
    assert twin["training_data"]["digest"] == card["training_data"]["digest"]
    assert "start" not in twin
    assert twin["optimizer"] == card["optimizer"] == "adamw"
    compared = json.loads((root / "scratch/compare/compare.json").read_text())
    assert {cell["metric"] for cell in compared["differences"]} >= {"dice"}
    assert all(len(cell["ci"]) == 2 for cell in compared["differences"])
    assert "carried weights - fresh weights" in text


def test_the_report_tells_what_was_carried(tuned: tuple[Path, str]) -> None:
    page = (tuned[0] / "report/index.html").read_text()
    assert "Weights carried" in page
    assert "100.0 % of" in page
    assert "CC BY 4.0" in page


def test_of_weights_of_flat_images_a_plan_of_volumes_takes_the_widths(tmp_path: Path) -> None:
    from medseg.core.files import write_json
    from medseg.core.stage import artifact_of
    from medseg.workflows.transferring import adopted, fitting_patch

    flat = {
        "widths": [4, 6],
        "strides": [[1, 1, 1], [2, 2, 1]],
        "kernels": [[3, 3, 1]] * 2,
        "norm": "instance",
    }
    facts = {"network": "unet", "network_arguments": flat, "dimensions": 2, "task": "segmentation"}
    write_json(tmp_path / "origin.json", {"facts": facts})
    deep = {"widths": [8, 16], "strides": [[1, 1, 1], [2, 2, 2]], "kernels": [[3, 3, 3]] * 2}
    plan = Plan(
        channels=("MR",), labels=labels(a=1), spacing_mm=(1, 1, 1), patch=(15, 16, 8), batch=2,
        intensity={"MR": Intensity(name="zscore")}, network="unet", network_arguments=deep,
    )  # fmt: skip
    settings, weights = TrainSettings(), artifact_of(tmp_path)
    taken = adopted(weights, settings, plan)
    assert taken == {"network": "unet", "network_arguments": {"widths": [4, 6], "norm": "instance"}}
    assert adopted(weights, settings, plan.but(patch=(16, 16, 1)))["network_arguments"] == flat
    three = plan.but(network_arguments={**deep, "widths": [8, 16, 32]})
    assert adopted(weights, settings, three) == {}
    assert adopted(weights, settings.but(plan={"network": "unet"}), plan) == {}
    assert adopted(weights, settings.but(task="classification"), plan) == {}
    assert fitting_patch(plan) == (16, 16, 8)
    assert fitting_patch(plan.but(patch=(16, 16, 8))) is None


def test_no_path_of_the_source_is_told(tuned: tuple[Path, str], source: Path) -> None:
    for file in tuned[0].rglob("*"):
        if file.is_file():
            assert str(source).encode() not in file.read_bytes(), file.name


def test_nothing_is_done_twice_and_a_comment_is_no_change(
    tiny_msd: Path, tuned: tuple[Path, str], source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tuned[0], quiet=True)
    transfer = {"source": str(source), "licence": "another", "origin": "us"}
    caplog.set_level("INFO", logger="medseg")
    train(_settings(tiny_msd).but(plan={}, transfer=transfer), run, "cpu")
    run.close()
    made = [r.message for r in caplog.records if " made, " in r.message]
    assert {line.split()[0] for line in made if line.split()[1:3] != ["0", "made,"]} <= {"report"}


def test_other_weights_train_again(
    tiny_msd: Path, tuned: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    model = tuned[0] / "train/fold0/model"
    weights = load_file(model / "weights.safetensors")
    save_file(
        {k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "w.safetensors"
    )
    run = Run(tuned[0], quiet=True)
    caplog.set_level("INFO", logger="medseg")
    words = ["plan.network_arguments.widths=[4,6]", "plan.network_arguments.norm=instance"]
    arguments = json.loads((model / "plan.json").read_text())["network_arguments"]
    settings = _settings(tiny_msd, *words).but(
        plan={"network_arguments": arguments}, transfer={"source": str(tmp_path / "w.safetensors")}
    )
    train(settings, run, "cpu")
    run.close()
    assert "changed: item.pretrained weights" in caplog.text


def test_a_recipe_whose_weights_do_not_fit_stops_with_the_account(
    tiny_msd: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"cohort.root={tiny_msd}", "split.folds=1", "tracking.enabled=false", *QUICK]
    words += [f"transfer.source={source}", "transfer.adopt=false"]
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    code = main(["train", str(tmp_path / "recipe.yaml"), *words, "--run", str(tmp_path / "run"), "--quiet"])
    said = capsys.readouterr().err
    assert code == 2
    assert "do not fit the network" in said
    assert "the floor is 50 %" in said
    assert "widths=[4, 6]" in said


def test_published_weights_become_a_folder_that_recipes_take(
    tiny_msd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An nnU-Net checkpoint by its own command, then a training that begins from it."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))
    import layouts

    theirs = layouts.PlainConvUNet(1, 4, [4, 8], [[1, 1, 1], [2, 2, 2]], [[3] * 3] * 2)
    content = layouts.nnunet(theirs, labels=("liver", "spleen", "lesion"))
    torch.save(content, tmp_path / "checkpoint_final.pth")
    out = tmp_path / "nnunet"
    assert main(["import-weights", str(tmp_path / "checkpoint_final.pth"), str(out)]) == 2
    assert "import-weights FILE OUT --format nnunet" in capsys.readouterr().err
    words = ["import-weights", str(tmp_path / "checkpoint_final.pth"), str(out), "--format", "nnunet"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"transfer: {{source: {out}}}" in said
    assert "widths: [4, 8]" in said
    run = Run(tmp_path / "run", quiet=True)
    assert train(_settings(tiny_msd).but(plan={}, transfer={"source": str(out)}), run, "cpu").exit_code == 0
    run.close()
    start = json.loads((run.root / "train/fold0/model/card.json").read_text())["start"]
    assert start["format"] == "nnunet"
    assert {part: tally["left"] for part, tally in start["parts"].items()} == dict.fromkeys(start["parts"], 0)


def test_a_folder_with_something_else_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a.b": torch.zeros(1)}, tmp_path / "w.pth")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert main(["import-weights", str(tmp_path / "w.pth"), str(tmp_path / "mine")]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert main(["import-weights", "hf:me/rep/w.pt", str(tmp_path / "elsewhere")]) == 2
    assert "must be pinned" in capsys.readouterr().err
    prefixed = ["import-weights", str(tmp_path / "w.pth"), str(tmp_path / "out"), "--prefix", "a.=encoder."]
    assert main(prefixed) == 0
    assert main(prefixed) == 0, "what it wrote before is replaced"


def test_what_is_wrong_with_weights_is_said_once_and_before_anything_is_prepared(
    tiny_msd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x08")
    torch.save({"a.b": torch.zeros(1)}, tmp_path / "w.pth")
    words = [f"cohort.root={tiny_msd}", "split.folds=1", "tracking.enabled=false", *QUICK]
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    for file, said in (("w.safetensors", "not safetensors"), ("w.pth", "do not fit the network")):
        run = tmp_path / f"run-{file}"
        given = [*words, f"transfer.source={tmp_path / file}", "--run", str(run)]
        assert main(["train", str(tmp_path / "recipe.yaml"), *given]) == 2
        assert capsys.readouterr().err.count(said) == 1
        assert not (run / "prepare").exists()


def test_settings_of_weights_without_any_are_refused(tiny_msd: Path, tmp_path: Path) -> None:
    from medseg.core.errors import MedsegError

    with pytest.raises(MedsegError, match=r"transfer\.mode is set, but there are no weights"):
        train(_settings(tiny_msd, "transfer.mode=frozen"), Run(tmp_path, quiet=True), "cpu")
