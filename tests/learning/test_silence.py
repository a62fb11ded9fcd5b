"""Other libraries are quiet while they are asked to be, and heard again after."""

from __future__ import annotations

import logging
import warnings

import pytest

from medseg.learning.silence import silenced


def test_only_errors_and_other_warnings_are_heard(caplog) -> None:
    speaker = logging.getLogger("a.stranger")
    with silenced("a.stranger", "of readers"):
        speaker.warning("not now")
        speaker.error("this")
        warnings.warn("of readers that are not there", stacklevel=1)
        with pytest.warns(UserWarning, match="of something else"):
            warnings.warn("of something else", stacklevel=1)
    speaker.warning("now")
    assert [record.message for record in caplog.records] == ["this", "now"]


def test_levels_come_back_after_an_error() -> None:
    speaker = logging.getLogger("another.stranger")
    speaker.setLevel(logging.INFO)

    def broken() -> None:
        with silenced("another.stranger"):
            warnings.warn("anything", stacklevel=1)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert speaker.level == logging.INFO
