"""The rules: what is planned for which kind of data, and what follows from a change by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.core.errors import MedsegError
from medseg.core.values import digest
from medseg.data.fingerprint import CaseFingerprint, ChannelFacts
from medseg.data.planning import make_plan, summary
from medseg.data.rules import MIN_SIDE, levels
from medseg.imaging.labels import labels

COHORT = SimpleNamespace(
    task="segmentation", channels=("MR",), labels=labels(a=1, b=2), classes=(), cases=(), multilabel=False
)
CLASSES = SimpleNamespace(
    task="classification", channels=("MR",), labels=(), classes=("x", "y"), cases=(), multilabel=False
)


def _cases(
    n: int = 12, shape=(36, 50, 35), spacing=(1.0, 1.0, 1.0), low: float = 0, high: float = 800, **more: Any
) -> list[CaseFingerprint]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        jitter = tuple(int(s + rng.integers(-2, 3)) if s > 8 else s for s in shape)
        inside = {"p005": 20.0 + i, "p500": 60.0, "p995": 160.0 - i, "mean": 61.0 + i / 3, "sd": 31.0}
        facts = ChannelFacts(low=low, high=high, mean=300, sd=100, background_share=0.01, foreground=inside)
        made.append(
            CaseFingerprint(
                case=f"c{i}", shape=jitter, spacing_mm=spacing, channels={"MR": facts},
                voxels={1: 100, 2: 100}, volume_ml={1: 0.1, 2: 0.1}, box=(10, 10, 10), **more,
            )
        )  # fmt: skip
    return made


def test_every_choice_has_a_reason():
    plan = make_plan(_cases(), COHORT)
    chosen = {"spacing_mm", "intensity", "patch", "network", "network_arguments", "batch", "members"}
    assert set(plan.why) == chosen
    assert all(plan.why.values())


def test_reasons_do_not_count_in_the_plan_s_identity():
    plan = make_plan(_cases(), COHORT)
    assert digest(plan) == digest(plan.but(why={}))


def test_a_small_image_is_covered_by_one_patch_rounded_up_for_pooling():
    plan = make_plan(_cases(), COHORT)
    assert plan.patch == (40, 56, 40)
    assert all(p % 2**3 == 0 for p in plan.patch)
    assert plan.dimensions == 3
    assert plan.batch >= 2


def test_a_large_image_is_cut_into_patches_of_equal_sides_in_mm():
    plan = make_plan(_cases(shape=(500, 500, 100), spacing=(0.8, 0.8, 4.0)), COHORT)
    sides = np.multiply(plan.patch, plan.spacing_mm)
    assert np.prod(plan.patch) <= 2**17
    assert sides.max() / sides.min() < 1.6


def test_one_patch_setting_turns_the_plan_into_2d_and_the_rest_follows():
    three, two = make_plan(_cases(), COHORT), make_plan(_cases(), COHORT, {"patch": (48, 64, 1)})
    assert (three.dimensions, two.dimensions) == (3, 2)
    assert two.batch > three.batch
    assert all(kernel[2] == 1 for kernel in two.network_arguments["kernels"])
    assert all(stride[2] == 1 for stride in two.network_arguments["strides"])
    assert two.preparation() == three.preparation(), "nothing is prepared again"
    assert two.why["patch"] == "set by hand"


def test_flat_images_are_planned_in_2d():
    assert make_plan(_cases(shape=(200, 220, 1)), COHORT).dimensions == 2


def test_ct_gets_a_window_that_one_changed_case_hardly_moves():
    cases = _cases(low=-1000, modality="CT")
    plan = make_plan(cases, COHORT)
    rule = plan.intensity["MR"]
    assert rule.name == "window_zscore"
    assert rule.settings["low"] <= 20
    assert rule.settings["high"] >= 150
    for n in range(len(cases)):
        assert make_plan([*cases[:n], *cases[n + 1 :]], COHORT).intensity == plan.intensity


def test_mr_is_normalised_image_by_image_and_regimes_are_noted():
    cases = _cases(modality="MR") + _cases(high=300_000, modality="MR")
    plan = make_plan(cases, COHORT)
    assert plan.intensity["MR"].name == "zscore"
    assert "fold between cases" in plan.why["intensity"]


def test_cut_out_images_are_normalised_inside():
    facts = _cases()[0].channels["MR"].but(background_share=0.6)
    cases = [c.but(channels={"MR": facts}) for c in _cases()]
    assert make_plan(cases, COHORT).intensity["MR"].settings == {"nonzero": 1.0}


def test_along_a_coarse_axis_the_better_scans_set_the_spacing():
    cases = _cases(spacing=(0.8, 0.8, 5.0)) + _cases(n=4, spacing=(0.8, 0.8, 3.0))
    assert make_plan(cases, COHORT).spacing_mm == (0.8, 0.8, 3.0)


def test_more_time_makes_a_wider_network():
    base = [
        make_plan(_cases(), COHORT, {"budget_minutes": m, "cores": 2}).network_arguments["widths"][0]
        for m in (1, 10, 100)
    ]
    assert base[0] < base[1] < base[2]


def test_arguments_by_hand_are_merged_with_the_derived_ones():
    plan = make_plan(_cases(), COHORT, {"network_arguments": {"norm": "instance"}})
    assert plan.network_arguments["norm"] == "instance"
    assert "widths" in plan.network_arguments


def test_an_unknown_choice_is_refused_with_the_nearest_name():
    with pytest.raises(MedsegError, match="did you mean 'patch'"):
        make_plan(_cases(), COHORT, {"pacth": (8, 8, 8)})
    with pytest.raises(MedsegError, match="patch"):
        make_plan(_cases(), COHORT, {"patch": "wide"})


def test_no_case_gives_no_plan():
    with pytest.raises(MedsegError, match="at least one case"):
        make_plan([], COHORT)


def test_the_order_of_the_cases_does_not_matter():
    cases = _cases()
    assert make_plan(cases, COHORT) == make_plan(cases[::-1], COHORT)


def test_classification_takes_the_whole_image_as_one_patch():
    cases = [c.but(box=None, voxels={}, volume_ml={}) for c in _cases(shape=(300, 200, 1))]
    plan = make_plan(cases, CLASSES)
    assert plan.network == "resnet"
    assert plan.outputs == 2
    assert plan.patch[2] == 1
    assert max(plan.patch) <= 128
    assert plan.preparation().whole == plan.patch


def test_the_summary_holds_the_ranges_of_the_cohort():
    found = summary(_cases(n=5))
    assert found["cases"] == 5
    assert found["intensity"]["MR"] == {"low": 0, "high": 800}


@given(
    st.tuples(*[st.sampled_from([1, 8, 12, 16, 24, 40, 56, 64, 96, 128])] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
)
def test_levels_fit_any_patch(patch, spacing):
    strides, kernels = levels(patch, spacing)
    total = np.prod(strides, axis=0)
    assert (np.array(patch) % total == 0).all()
    assert all(n // t >= MIN_SIDE or t == 1 for n, t in zip(patch, total, strict=True))
    assert len(strides) == len(kernels)
    assert all(k == 1 for kernel in kernels for k, p in zip(kernel, patch, strict=True) if p == 1)
