"""The command line: words, exit codes, and nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medseg.cli import VERBS, launch, main
from medseg.core.errors import CaseError, MedsegError
from medseg.core.values import Value
from medseg.workflows.outcome import Outcome


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself_and_its_common_options(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(option in said for option in ("--workers", "--device", "--json", "--quiet"))


def test_every_verb_has_its_journey() -> None:
    from medseg import verbs

    assert set(verbs.VERBS) == set(VERBS)


def test_neither_help_nor_import_loads_a_heavy_library() -> None:
    code = (
        "import sys, medseg\n"
        "from medseg.cli import parser\n"
        "parser()\n"
        "heavy = {'torch', 'monai', 'numpy', 'pydicom', 'nibabel', 'mlflow', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_a_recipe_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from medseg.workflows.settings import TrainSettings\n"
        "TrainSettings()\n"
        "heavy = {'torch', 'monai', 'mlflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_recipe_is_a_usage_error_with_a_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "no/such.yaml"]) == 2
    assert "mend: give the path of a YAML file" in capsys.readouterr().err


def test_an_unknown_setting_is_refused_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "configs/segmentation/hippocampus_3d.yaml", "training.epoch=5"]) == 2
    assert "did you mean 'epochs'?" in capsys.readouterr().err


def test_overrides_are_taken_before_and_after_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = "configs/segmentation/hippocampus_3d.yaml"
    code = main(["train", recipe, "training.rate=1e-3", "--run", str(tmp_path), "training.seed=x"])
    said = capsys.readouterr().err
    assert code == 2
    assert "training.seed = 'x'" in said
    assert "training.rate" not in said


def test_a_word_that_is_no_override_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "x.yaml", "--rnu", "there"])
    assert ended.value.code == 2


def test_an_output_folder_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "data").mkdir()
    code = main(["ingest", str(tmp_path / "data"), "--run", str(tmp_path / "file")])
    assert code == 2
    assert "mend" in capsys.readouterr().err


class _Settings(Value):
    name: str = "small"
    depth: int = 1


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (None, 0),
        (MedsegError("wrong"), 2),
        (CaseError("bad case"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("oops"), 1),
    ],
)
def test_a_script_ends_with_the_exit_code_of_the_contract(
    raised: BaseException | None, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def journey(settings: _Settings, run: object, device: str) -> Outcome:
        assert (settings.depth, device) == (3, "cpu")
        if raised is not None:
            raise raised
        return Outcome(text="done")

    monkeypatch.setattr(sys, "argv", ["script", "depth=3", "--run", str(tmp_path), "--device", "cpu"])
    assert launch(journey, _Settings) == code


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_a_usage_error(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    words = ["evaluate", str(tmp_path / "data"), str(tmp_path / "data"), str(tmp_path / "out")]
    assert main([*words, f"--workers={workers}"]) == 2
    assert "is no number of processes" in capsys.readouterr().err
