"""Labels: values with names, each once."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.core.errors import MedsegError
from medseg.imaging.labels import (
    Label,
    checked,
    labels,
    membership,
    named_labels,
    painting,
    parse_labels,
    values_of,
)


def test_labels_are_sorted_by_value() -> None:
    assert [(x.name, x.value) for x in labels(tumour=2, kidney=1)] == [("kidney", 1), ("tumour", 2)]


def test_the_command_line_writes_the_same_labels() -> None:
    assert parse_labels("tumour=2, kidney = 1") == labels(kidney=1, tumour=2)
    assert parse_labels("") == ()


@pytest.mark.parametrize("text", ["kidney", "kidney=one", "kidney=1=2", "=1", "kidney=0", "kidney=70000"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(MedsegError):
        parse_labels(text)


@pytest.mark.parametrize(
    ("text", "what"), [("a=1,b=1", "share a value[^$]*a=1, b=1"), ("a=1,a=2", "share a name")]
)
def test_a_value_or_name_given_twice_is_refused(text: str, what: str) -> None:
    with pytest.raises(MedsegError, match=what):
        parse_labels(text)


def test_background_is_never_a_label() -> None:
    with pytest.raises(MedsegError, match="cannot be used"):
        labels(background=0)


def test_a_label_shows_its_own_colour_or_one_of_the_palette() -> None:
    assert Label(value=1, name="a", colour="#123456").shown_colour() == "#123456"
    shown = [Label(value=v, name="a").shown_colour() for v in range(1, 9)]
    assert len(set(shown)) == 8
    assert Label(value=9, name="a").shown_colour() == shown[0]


@pytest.mark.parametrize("colour", ["red", "#12345", "#12345g", "#123456;background:url(x)"])
def test_a_colour_that_is_none_is_refused(colour: str) -> None:
    with pytest.raises(ValueError, match="colour"):
        Label(value=1, name="a", colour=colour)


def test_no_labels_are_no_fault() -> None:
    assert checked([]) == ()


# -- regions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, {"whole": 1, "core": 2, "enhancing": 3}),
        ({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}, {"core": 1, "whole": 2, "enhancing": 4}),
        ({"a": [1, 2], "b": [2, 3]}, {"a": 1, "b": 3}),  # neither holds the other
        ({"organ": [1, 2, 5], "lesion": [5]}, {"organ": 1, "lesion": 5}),  # two values of its own
    ],
)
def test_a_region_s_value_is_one_that_no_smaller_region_holds(given, wanted) -> None:
    found = named_labels(given)
    assert {x.name: x.value for x in found} == wanted
    assert all(set(x.values) == set(np.atleast_1d(given[x.name])) for x in found)


def test_the_command_line_writes_regions_as_sums() -> None:
    assert parse_labels("whole=1+2, core=2") == named_labels({"whole": [1, 2], "core": 2})


@pytest.mark.parametrize("given", [{"a": [1, 2], "b": 1, "c": 2}, {"a": [1, 2], "b": [2, 1]}])
def test_a_region_without_a_voxel_of_its_own_is_refused(given) -> None:
    with pytest.raises(MedsegError, match="no voxel of its own"):
        named_labels(given)


def test_what_each_value_lies_in_is_what_paints_it() -> None:
    found = named_labels({"whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]})
    values, lies = values_of(found), membership(found)
    assert values == (1, 2, 4)
    assert lies.tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 1]]
    table = painting(found)
    for value, inside in zip((0, *values), lies, strict=True):
        assert table[sum(2**n for n, there in enumerate(inside) if there)] == value


def test_voxels_of_a_region_have_any_of_its_values() -> None:
    whole, core = named_labels({"whole": [1, 2], "core": 2})
    array = np.array([0, 1, 2, 3], np.uint8)
    assert whole.within(array).tolist() == [False, True, True, False]
    assert core.within(array).tolist() == [False, False, True, False]
