"""Names lead to functions: ours by name, the user's by a dotted one."""

from __future__ import annotations

import math

import pytest

from medseg.core.errors import MedsegError
from medseg.core.registry import look_up

TABLE = {"unet": max, "swin": min}


def test_a_known_name_gives_its_function() -> None:
    assert look_up(TABLE, "unet") is max


def test_a_dotted_name_is_imported() -> None:
    assert look_up(TABLE, "math:sqrt") is math.sqrt


def test_an_unknown_name_proposes_the_nearest() -> None:
    with pytest.raises(MedsegError, match="unknown network 'unett'") as caught:
        look_up(TABLE, "unett", "network")
    assert "did you mean 'unet'?" in str(caught.value)
    assert "known: swin, unet" in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_lab.nets:swin", "math:no_such_function"])
def test_a_dotted_name_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(MedsegError, match="cannot be imported"):
        look_up(TABLE, name, "network")
