"""Values are frozen, refuse what they do not know, and have a digest by content alone."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as s

from medseg.core.errors import MedsegError
from medseg.core.values import Value, digest, identity_of, nearest, validated


class Inner(Value):
    rate: float = 1e-3


class Outer(Value):
    epochs: int = 5
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    why: str = ""

    outside_identity: ClassVar[frozenset[str]] = frozenset({"why"})


def test_a_value_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().epochs = 6  # type: ignore[misc]


def test_but_makes_a_new_value_and_leaves_the_old_one() -> None:
    old = Outer()
    new = old.but(epochs=7)
    assert (old.epochs, new.epochs) == (5, 7)
    assert new.but(epochs=5) == old


def test_but_validates_as_if_the_value_were_new() -> None:
    with pytest.raises(MedsegError, match="cannot be used") as caught:
        Outer().but(epochs="many")
    assert "epochs = 'many'" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"epohs": 1}, "unknown setting 'epohs': did you mean 'epochs'?"),
        ({"inner": {"rat": 1}}, "unknown setting 'inner.rat': did you mean 'rate'?"),
        ({"parts": [{"rtae": 1}]}, "unknown setting 'parts.0.rtae': did you mean 'rate'?"),
        ({"maybe": {"rates": 1}}, "unknown setting 'maybe.rates': did you mean 'rate'?"),
        ({"zzz": 1}, "known here: epochs, inner, parts, maybe, why"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(fields: dict[str, object], hint: str) -> None:
    with pytest.raises(MedsegError) as caught:
        validated(Outer, fields)
    assert hint in (caught.value.evidence or "")


def test_every_wrong_setting_is_told_at_once() -> None:
    with pytest.raises(MedsegError, match=r"2 setting\(s\)") as caught:
        validated(Outer, {"epochs": "x", "inner": {"rate": "y"}})
    assert "epochs" in str(caught.value)
    assert "inner.rate" in str(caught.value)


def test_a_long_wrong_value_is_shortened() -> None:
    with pytest.raises(MedsegError) as caught:
        validated(Outer, {"epochs": "x" * 5000})
    assert len(str(caught.value)) < 400


_plain = s.recursive(
    s.none() | s.booleans() | s.integers() | s.floats(allow_nan=False) | s.text(max_size=5),
    lambda inner: s.lists(inner, max_size=3) | s.dictionaries(s.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(s.dictionaries(s.text(max_size=4), _plain, max_size=5))
def test_a_digest_is_blind_to_the_order_of_mappings(mapping: dict[str, object]) -> None:
    assert digest(mapping) == digest(dict(reversed(list(mapping.items()))))


@given(_plain, _plain)
def test_different_contents_have_different_digests(one: object, other: object) -> None:
    same = repr(identity_of(one)) == repr(identity_of(other))
    assert same <= (digest(one) == digest(other))
    if one != other:
        assert digest(one) != digest(other)


def test_a_comment_does_not_change_a_digest_and_a_setting_does() -> None:
    assert digest(Outer(why="tried it")) == digest(Outer(why="no idea"))
    assert digest(Outer(epochs=6)) != digest(Outer())


def test_a_digest_stays_what_it_is_from_version_to_version() -> None:
    assert digest(Outer()) == "43a91112959069e857fc899d76b4739806653a3e3322e135166e004999acaf40"
    assert digest({"b": [1, 2.5, None], "a": "x"}) == digest({"a": "x", "b": (1, 2.5, None)})


@pytest.mark.parametrize("thing", [Path("/data/x"), object(), {1, 2}])
def test_what_has_no_content_has_no_identity(thing: object) -> None:
    with pytest.raises(TypeError, match="no identity"):
        digest(thing)


def test_the_nearest_name_is_found_and_a_far_one_is_not() -> None:
    assert nearest("learning_rte", ["learning_rate", "epochs"]) == "learning_rate"
    assert nearest("qqq", ["learning_rate", "epochs"]) is None
