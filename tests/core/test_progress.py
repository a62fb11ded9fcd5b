"""Bars on a terminal, silence elsewhere."""

from __future__ import annotations

import pytest

from medseg.core.progress import meter, progress


def test_items_come_through_and_nothing_is_shown_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(["a", "b"], "ingest")) == ["a", "b"]
    assert list(progress(iter("ab"), "ingest", total=2)) == ["a", "b"]
    with meter("train", total=3) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")
