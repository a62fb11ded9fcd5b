"""What the README and the docs tell people to type can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from medseg.cli import VERBS, parser
from medseg.core.config import load_config

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def _commands(page: Path) -> list[str]:
    lines = [line for block in _blocks(page, "bash") for line in block.splitlines()]
    return [line for line in lines if line.strip()]


ALL = [(page.name, command) for page in PAGES for command in _commands(page)]
MEDSEG = [(page, command) for page, command in ALL if command.startswith("medseg ")]


def test_there_is_something_to_check() -> None:
    assert len(MEDSEG) >= 15


@pytest.mark.parametrize(("page", "command"), MEDSEG)
def test_a_medseg_command_is_understood(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if "..." in command or words[0] not in VERBS:
        assert words[0] in (*VERBS, "..."), f"{page}: {command}"
        return
    args, rest = parser().parse_known_args(words)
    assert all("=" in word for word in rest), f"{page}: {command}"
    overrides = [*getattr(args, "overrides", []), *rest]
    if args.verb == "train" and args.config != "CONFIG":
        from medseg.workflows.settings import TrainSettings

        recipe = None if args.config == "my.yaml" else PROJECT / args.config
        load_config(TrainSettings, recipe, overrides)


@pytest.mark.parametrize(("page", "command"), [(p, c) for p, c in ALL if c.startswith("make ")])
def test_a_make_target_is_there(page: str, command: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    first = re.sub(r"\$\(.*?\)", "", command.partition("&&")[0].partition("#")[0])
    words = [word for word in first.split()[1:] if "=" not in word]
    assert set(words) <= targets, f"{page}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_verb_named_in_passing_exists(page: Path) -> None:
    named = re.findall(r"`medseg ([a-z-]+)", page.read_text(encoding="utf-8"))
    assert set(named) <= set(VERBS)


def test_every_verb_stands_in_the_readme() -> None:
    table = (PROJECT / "README.md").read_text()
    assert [verb for verb in VERBS if f"| `{verb}" not in table] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_python_story_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_msd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (story,) = _blocks(PROJECT / "README.md", "python")
    assert len([line for line in story.splitlines() if line.strip()]) < 20
    image = next((tiny_msd / "imagesTr").glob("*.nii.gz"))
    network = (
        "network_arguments={'widths': (4, 8), 'strides': ((1,) * 3, (2,) * 3), 'kernels': ((3,) * 3,) * 2}"
    )
    for told, small in {
        "data/Task04_Hippocampus": str(tiny_msd),
        "new_patient.nii.gz": str(image),
        "workers=2": "quiet=True",
        "epochs=50": "epochs=1, steps_per_epoch=2",
        "folds=5": "folds=2",
        "patch=(40, 56, 40)": f"patch=(16, 16, 16), batch=2, {network}",
    }.items():
        assert told in story
        story = story.replace(told, small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(story, "README.md", "exec"), names)
    mask, scores = names["mask"], names["scores"]
    assert mask.array.shape[0] == 1  # type: ignore[attr-defined]
    assert len(scores.models) == 2  # type: ignore[attr-defined]
