"""YAML and overrides become a checked value, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from medseg.core.config import load_config, save_config
from medseg.core.errors import MedsegError
from medseg.core.values import Value


class Training(Value):
    epochs: int = 5
    rate: float = 1e-2
    budget_minutes: float | None = None


class Config(Value):
    name: str = "x"
    training: Training = Training()
    patch: tuple[int, int, int] = (8, 8, 8)
    extra: dict[str, Any] = Field(default_factory=dict)


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text("name: liver\ntraining:\n  epochs: 7\n  rate: 1e-3\nextra:\n  momentum: 9e-1\n")
    return file


def test_defaults_need_no_file() -> None:
    assert load_config(Config, None) == Config()


def test_a_file_is_read_and_1e_3_is_a_number(yaml: Path) -> None:
    config = load_config(Config, yaml)
    assert config.training.rate == 0.001
    assert config.extra["momentum"] == 0.9, "also where no type says so"
    assert config.name == "liver"


def test_overrides_win_and_later_ones_win_over_earlier_ones(yaml: Path) -> None:
    config = load_config(Config, yaml, ["training.epochs=2", "training.epochs=3", "extra.beta=1e-2"])
    assert config.training.epochs == 3
    assert config.training.rate == 0.001, "the rest of the section stays"
    assert config.extra == {"momentum": 0.9, "beta": 0.01}


def test_an_override_may_be_a_list_or_nothing(yaml: Path) -> None:
    config = load_config(Config, yaml, ["patch=[16,16,1]", "training.budget_minutes=null"])
    assert config.patch == (16, 16, 1)
    assert config.training.budget_minutes is None


def test_an_override_may_hold_an_equals_sign_and_a_path(yaml: Path) -> None:
    assert load_config(Config, yaml, ["name=a=b"]).name == "a=b"
    assert load_config(Config, yaml, ["name=../shared/data/x"]).name == "../shared/data/x"


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("trainning.epochs=3", "unknown setting 'trainning': did you mean 'training'?"),
        ("training.epoch=3", "unknown setting 'training.epoch': did you mean 'epochs'?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(yaml: Path, override: str, hint: str) -> None:
    with pytest.raises(MedsegError) as caught:
        load_config(Config, yaml, [override])
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "where"),
    [("training.epochs=many", "training.epochs = 'many'"), ("training=3", "training = 3"),
     ("patch=[1,2]", "patch.2"), ("training.epochs=2.5", "training.epochs = 2.5")],
)  # fmt: skip
def test_a_wrong_type_is_refused_naming_setting_and_value(yaml: Path, override: str, where: str) -> None:
    with pytest.raises(MedsegError) as caught:
        load_config(Config, yaml, [override])
    assert where in str(caught.value)


@pytest.mark.parametrize("override", ["training.epochs", "=3", "--epochs=3", "training.epochs=[1,"])
def test_what_is_no_override_is_refused(yaml: Path, override: str) -> None:
    with pytest.raises(MedsegError, match="override"):
        load_config(Config, yaml, [override])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"a: [1, 2", "not readable YAML"),
        (b"name: x\nname: y\n", "not readable YAML"),
        (b"\xff\xfe\x00", "not readable YAML"),
        (b"- a\n- b\n", "not a list"),
        (b"name: ${nowhere}\n", "refers to something that is not there"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: bytes, what: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text)
    with pytest.raises(MedsegError, match=what):
        load_config(Config, file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="no such configuration"):
        load_config(Config, tmp_path / "none.yaml")
    with pytest.raises(MedsegError, match="not readable"):
        load_config(Config, tmp_path)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(Config, tmp_path / "empty.yaml") == Config()


def test_what_is_saved_reads_back_equal(tmp_path: Path, yaml: Path) -> None:
    config = load_config(Config, yaml, ["training.budget_minutes=1.5"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Config, tmp_path / "saved.yaml") == config
