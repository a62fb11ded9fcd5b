"""What a sweep may try, as it is written on the command line."""

from __future__ import annotations

import pytest

from medseg.core.errors import MedsegError
from medseg.workflows.sweep_space import Axis, grid, parse, point_of, study, words_of


def test_values_ranges_and_what_stays_the_same():
    axes, same = parse(
        [
            "training.rate=1e-4..1e-2:log",
            "plan.patch=[8,8,8],[16,16,8]",
            "training.members=1..3:int",
            "name=x",
        ]
    )
    assert axes == [
        Axis("training.rate", low=1e-4, high=1e-2, log=True),
        Axis("plan.patch", ("[8,8,8]", "[16,16,8]")),
        Axis("training.members", low=1, high=3, whole=True),
    ]
    assert same == ["name=x"]


def test_one_list_is_one_value():
    axes, same = parse(["plan.network_arguments.widths=[4,8]"])
    assert axes == [] and same == ["plan.network_arguments.widths=[4,8]"]


def test_the_grid_is_every_combination():
    axes, _ = parse(["training.rate=1,2", "plan.network=a,b,c"])
    points = list(grid(axes))
    assert len(points) == 6
    assert words_of(points[1]) == ["training.rate=1", "plan.network=b"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cohort.root=a,b"], "cannot try values of cohort.root"),
        (["split.folds=2,3"], "cannot try values of split.folds"),
        (["training.rate=1,2", "training.rate=3,4"], "given twice"),
        (["training.rate=2..1"], "is empty"),
        (["training.rate=0..1:log"], "begin above 0"),
        (["training.rate=a..b"], "is no range"),
    ],
)
def test_what_cannot_be_tried_is_refused(words, says):
    with pytest.raises(MedsegError, match=says):
        parse(words)


def test_a_range_needs_a_number_of_trials():
    axes, _ = parse(["training.rate=1e-4..1e-2"])
    with pytest.raises(MedsegError, match="--trials"):
        list(grid(axes))


def test_a_search_asks_the_same_again_when_it_is_told_the_same():
    pytest.importorskip("optuna")
    axes, _ = parse(
        ["training.rate=1e-4..1e-2:log", "training.epochs=2..40:int", "plan.network=unet,segresnet"]
    )

    def asked():
        made, space = study(axes, 3, low_is_good=False)
        for _ in range(14):  # more than the random ones a search begins with
            question = made.ask(dict(space))
            point = point_of(question.params)
            made.tell(question, -abs(float(point["training.rate"]) - 3e-3))
            yield point

    first = list(asked())
    assert first == list(asked())
    assert all(1e-4 <= float(p["training.rate"]) <= 1e-2 for p in first)
    assert all(p["training.epochs"].isdecimal() for p in first)
