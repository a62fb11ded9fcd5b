"""Labels: values with names, each once."""

from __future__ import annotations

import pytest

from medseg.core.errors import MedsegError
from medseg.imaging.labels import Label, checked, labels, parse_labels


def test_labels_are_sorted_by_value() -> None:
    assert [(x.name, x.value) for x in labels(tumour=2, kidney=1)] == [("kidney", 1), ("tumour", 2)]


def test_the_command_line_writes_the_same_labels() -> None:
    assert parse_labels("tumour=2, kidney = 1") == labels(kidney=1, tumour=2)
    assert parse_labels("") == ()


@pytest.mark.parametrize("text", ["kidney", "kidney=one", "kidney=1=2", "=1", "kidney=0", "kidney=70000"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(MedsegError):
        parse_labels(text)


@pytest.mark.parametrize(("text", "what"), [("a=1,b=1", "share a value"), ("a=1,a=2", "share a name")])
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
