"""Sampling: reproducible from (seed, epoch, index), with its share of foreground."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_patients import small_plan

from medseg.core.files import write_json
from medseg.learning.monitor import set_aside
from medseg.learning.sampling import PreparedCase, Sampler, cut, window_of


def _sampler(cases, **changes) -> Sampler:
    settings = {"batch": 4, "foreground": 0.5, "seed": 3} | changes
    return Sampler(cases, small_plan((8, 8, 4)), **settings)


def test_a_step_is_the_same_however_often_and_in_whatever_order_it_is_drawn(cases):
    first, second = _sampler(cases), _sampler(cases)
    second.draw(7, 1)
    a, b = first.draw(2, 1), second.draw(2, 1)
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.seeds, b.seeds)
    assert not np.array_equal(a.image, first.draw(3, 1).image)


def test_reading_ahead_changes_nothing(cases):
    sampler = _sampler(cases)
    ahead = list(sampler.epoch(1, range(2, 5)))
    for step, drawn in zip(range(2, 5), ahead, strict=True):
        np.testing.assert_array_equal(drawn.image, sampler.draw(1, step).image)


def test_every_case_comes_once_before_any_comes_again(cases):
    sampler = _sampler(cases)
    turns = [sampler._turn(0, place) for place in range(2 * len(cases))]
    assert sorted(turns[: len(cases)]) == sorted(turns[len(cases) :]) == list(range(len(cases)))


def test_the_promised_share_of_windows_is_centred_on_a_label(cases):
    for share in (0.0, 0.5, 1.0):
        sampler = _sampler(cases, foreground=share)
        hits = 0
        for step in range(10):
            target = sampler.draw(0, step).target
            i, j, k = (n // 2 for n in target.shape[1:])
            near = target[:, i - 3 : i + 3, j - 3 : j + 3, k - 2 : k + 2] > 0
            hits += int(near.any(axis=(1, 2, 3)).sum())
        assert hits >= 40 * share


def test_shapes_and_types(cases):
    drawn = _sampler(cases).draw(0, 0)
    window = window_of((8, 8, 4))
    assert drawn.image.shape == (4, 1, *window)
    assert drawn.image.dtype == np.float32
    assert drawn.target.shape == (4, *window)
    assert drawn.target.dtype == np.uint8


def test_a_flat_patch_reads_one_slice(cases):
    drawn = Sampler(cases, small_plan((16, 16, 1)), 4, 1.0, 0).draw(0, 0)
    assert drawn.image.shape[-1] == 1


def test_a_case_without_any_label_is_drawn_anywhere(cases, monkeypatch):
    empty = cases[0]
    monkeypatch.setitem(empty.__dict__, "foreground", np.zeros((0, 4), np.int32))
    assert Sampler([empty], small_plan((8, 8, 4)), 2, 1.0, 0).draw(0, 0).image.shape[0] == 2


@given(st.integers(1, 7), st.integers(1, 12), st.floats(-3, 10))
def test_a_window_is_cut_with_its_edge_repeated(n, window, middle):
    array = np.arange(n, dtype=np.float32).reshape(1, n, 1, 1)
    out = cut(array, (middle, 0.5, 0.5), (window, 1, 1)).ravel()
    start = int(np.floor(middle - window / 2))
    np.testing.assert_array_equal(out, np.clip(np.arange(start, start + window), 0, n - 1))


@pytest.mark.parametrize("patch", [(8, 8, 4), (7, 9, 1)])
def test_a_window_is_larger_than_its_patch_but_flat_where_it_is(patch):
    assert all(w >= 1.25 * p or p == w == 1 for w, p in zip(window_of(patch), patch, strict=True))


def _class_cases(tmp_path, indices):
    made = []
    for n, found in enumerate(indices):
        folder = tmp_path / f"k{n}"
        folder.mkdir()
        np.save(folder / "image.npy", np.full((1, 8, 8, 1), n, np.float16))
        write_json(folder / "prepared.json", {"patient": f"p{n}", "class_indices": found})
        made.append(PreparedCase(f"k{n}", folder))
    return made


def _class_plan(**changes):
    return small_plan(
        (8, 8, 1), task="classification", labels=(), classes=("a", "b", "c"), network="resnet",
        network_arguments={}, **changes,
    )  # fmt: skip


def test_balanced_classes_come_equally_often_and_every_case_before_any_again(tmp_path):
    cases = _class_cases(tmp_path, [[0]] * 6 + [[1]] * 2 + [[2]])
    sampler = Sampler(cases, _class_plan(balance="sampling"), 3, 0.0, 0)
    drawn = [sampler.draw(0, step) for step in range(6)]
    targets = np.concatenate([d.target for d in drawn])
    assert np.bincount(targets).tolist() == [6, 6, 6]
    which = np.concatenate([d.image[:, 0, 4, 4, 0] for d in drawn])
    assert sorted(which[targets == 0].tolist()) == [0, 1, 2, 3, 4, 5]
    assert sorted(which[targets == 1].tolist()) == [6, 6, 6, 7, 7, 7]
    again = Sampler(cases, _class_plan(balance="sampling"), 3, 0.0, 0).draw(0, 4)
    assert (again.image == drawn[4].image).all()


def test_several_classes_a_case_are_drawn_as_flags(tmp_path):
    cases = _class_cases(tmp_path, [[0, 2], [], [1]])
    drawn = Sampler(cases, _class_plan(multilabel=True), 3, 0.0, 0).draw(0, 0)
    found = {tuple(row) for row in drawn.target.tolist()}
    assert found == {(1, 0, 1), (0, 0, 0), (0, 1, 0)}
    assert (drawn.classes == drawn.target).all()


def test_a_case_without_a_class_is_neither_trained_on_nor_looked_at(tmp_path):
    cases = _class_cases(tmp_path, [[0], None, [1], [2], None] * 14)
    trained, monitored = set_aside(cases, 0.49, _class_plan(), 0)
    assert {c.id for c in (*trained, *monitored)} == {c.id for c in cases if c.info["class_indices"]}
    assert len(monitored) == 21


def test_a_dozen_classes_choose_no_checkpoint(tmp_path):
    cases = _class_cases(tmp_path, [[0], [1]] * 20)
    assert set_aside(cases, 0.3, _class_plan(), 0) == (cases, [])
