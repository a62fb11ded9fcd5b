"""The account counts parameters, stops where too little was carried, and guesses the prefix."""

from __future__ import annotations

import pytest

from medseg.core.errors import MedsegError
from medseg.learning.account import Account, Tally, check_floor, nearest_prefixes, remarks


def _account(**changes) -> Account:
    parts = {
        "stem": Tally(exact=10), "encoder": Tally(exact=40, adapted=10, left=40), "head": Tally(left=900)
    }  # fmt: skip
    fields = {"format": "state", "sha256": "ab" * 32, "floor": 0.5, "parts": parts}
    return Account(**(fields | {"asked": ("stem", "encoder", "decoder", "head")} | changes))


def test_the_share_is_of_the_parameters_of_stem_and_encoder():
    assert _account().share == pytest.approx(60 / 100)
    assert _account(asked=("encoder",)).share == pytest.approx(50 / 90)
    assert _account(asked=("head",)).share == 0


def test_at_the_floor_it_goes_on_and_below_it_stops_with_the_table():
    check_floor(_account(floor=0.6))
    with pytest.raises(MedsegError) as caught:
        check_floor(_account(floor=0.61), hint="did you mean x?")
    said = str(caught.value)
    assert "60.0 % of the parameters of stem and encoder" in said
    assert "the floor is 61 %" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["encoder", "90", "40", "10", "40"] in rows
    assert said.endswith("did you mean x?")


def test_nothing_carried_stops_whatever_the_floor():
    empty = {"encoder": Tally(left=5)}
    with pytest.raises(MedsegError, match=r"0\.0 % of the parameters of encoder"):
        check_floor(_account(floor=0.0, parts=empty))


def test_remarks_are_summed_by_part_and_reason():
    found = remarks([("stem", "a", "x", 2), ("stem", "a", "y", 3), ("head", "a", "z", 4)])
    assert [(r.part, r.parameters, r.tensors, r.example) for r in found] == [
        ("stem", 5, 2, "x"), ("head", 4, 1, "z"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("module.backbone.", ""), ("", "encoder."), ("a.", "b.c."), ("net.enc.", "encoder.levels.")],
)
def test_the_prefix_that_places_most_parameters_is_found(theirs, ours):
    names = {f"layer{n}.{m}.conv.weight": 10 * n + m for n in range(3) for m in range(3)}
    noise = {"other.conv.weight": 3}
    found = nearest_prefixes(
        {theirs + k: v for k, v in names.items()} | noise, {ours + k: v for k, v in names.items()}
    )
    assert found == {theirs: ours}


def test_names_that_fit_already_or_not_at_all_give_no_prefix():
    assert nearest_prefixes({"a.conv.weight": 1}, {"a.conv.weight": 1}) is None
    assert nearest_prefixes({"a.x": 1}, {"b.y": 2}) is None


def test_the_words_for_people_name_every_part():
    words = _account(licence="MIT").words()
    assert words["encoder"] == "55.6 % of 90 parameters carried (40 exact, 10 adapted, 40 left)"
    assert words["licence"] == "MIT"
