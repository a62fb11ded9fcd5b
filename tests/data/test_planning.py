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
from medseg.data.budget import unet_gb
from medseg.data.fingerprint import CaseFingerprint, ChannelFacts
from medseg.data.overrides import Fixed
from medseg.data.planning import make_plan, summary
from medseg.data.rules import MIN_SIDE, levels
from medseg.imaging.labels import labels, named_labels

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
    chosen |= {"sampling", "cascade"}
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
    assert plan.intensity["MR"].name == "percentile_zscore"
    assert "fold between cases" in plan.why["intensity"]
    assert make_plan(_cases(modality="MR"), COHORT).intensity["MR"].name == "zscore"


def test_each_channel_has_a_scale_of_its_own():
    cohort = SimpleNamespace(**{**vars(COHORT), "channels": ("MR", "mask")})
    binary = _cases()[0].channels["MR"].but(levels=2, least=0, most=1)
    cases = [c.but(channels={**c.channels, "mask": binary}) for c in _cases(modality="MR")]
    rules = make_plan(cases, cohort).intensity
    assert (rules["MR"].name, rules["mask"].name) == ("zscore", "binary")
    assert rules["mask"].settings == {"above": 0.5}
    by_hand = {"intensity": {"mask": {"name": "zscore"}}}
    assert make_plan(cases, cohort, by_hand).intensity["MR"] == rules["MR"], "the rest is derived"
    with pytest.raises(MedsegError, match="no channel 'PET'"):
        make_plan(cases, cohort, {"intensity": {"PET": {"name": "zscore"}}})
    for rule, said in (
        ({"name": "zscor"}, "unknown intensity 'zscor'"),
        ({"name": "window_unit", "settings": {"low": 0}}, "{high: ...}"),
        ({"name": "zscore", "settings": {"low": 0}}, "it takes nonzero; given: low"),
    ):
        with pytest.raises(MedsegError, match=said):
            make_plan(cases, cohort, {"intensity": {"MR": rule}})


def test_few_thick_slices_are_planned_in_2d():
    few = make_plan(_cases(shape=(220, 240, 9), spacing=(1.4, 1.4, 8.0)), COHORT)
    many = make_plan(_cases(shape=(220, 240, 40), spacing=(1.4, 1.4, 8.0)), COHORT)
    thin = make_plan(_cases(shape=(220, 240, 9), spacing=(1.4, 1.4, 2.0)), COHORT)
    assert (few.dimensions, many.dimensions, thin.dimensions) == (2, 3, 3)
    assert "2-D: 9 slices" in few.why["patch"]
    assert make_plan(
        _cases(shape=(220, 240, 9), spacing=(1.4, 1.4, 8.0)), COHORT, {"patch": (48, 48, 8)}
    ).batch


def test_a_patch_that_shows_little_of_the_organ_gets_a_coarse_network_first():
    large = [c.but(box=(300, 250, 200)) for c in _cases(shape=(400, 400, 300))]
    plan = make_plan(large, COHORT)
    assert plan.cascade is not None
    shown = np.multiply(plan.cascade.patch, plan.cascade.spacing_mm)
    assert (shown >= 0.9 * np.array([300, 250, 200])).all(), "the organ in one look"
    assert np.prod(plan.cascade.patch) <= np.prod(plan.patch)
    assert all(c > s for c, s in zip(plan.cascade.spacing_mm, plan.spacing_mm, strict=True))
    assert len(levels(plan.cascade.patch, plan.cascade.spacing_mm)[0]) >= 3
    assert make_plan(large, COHORT, {"cascade": "none"}).cascade is None
    by_hand = {"spacing_mm": (4, 4, 4), "patch": (64, 64, 48)}
    assert make_plan(large, COHORT, {"cascade": by_hand}).cascade.patch == (64, 64, 48)
    assert make_plan(_cases(), COHORT).cascade is None
    regions = SimpleNamespace(**vars(COHORT) | {"labels": named_labels({"both": [1, 2], "b": [2]})})
    assert make_plan(large, regions).cascade == plan.cascade, "regions are no other case"
    with pytest.raises(MedsegError, match="2-D plan has no cascade"):
        make_plan(_cases(), COHORT, {"patch": (48, 64, 1), "cascade": by_hand})
    with pytest.raises(MedsegError, match="plan of classes has no cascade"):
        make_plan(_cases(), CLASSES, {"cascade": by_hand})


def test_rare_labels_and_small_targets_are_drawn_more_often():
    even = make_plan(_cases(), COHORT).sampling
    assert (even.foreground, even.label_weights) == (0.5, ())
    cases = [c.but(voxels={1: 100, 2: 0 if n % 4 else 50}) for n, c in enumerate(_cases())]
    assert make_plan(cases, COHORT).sampling.label_weights == (1.0, 4.0)
    lost = [c.but(box=(6, 6, 6)) for c in _cases(shape=(400, 400, 300))]
    assert make_plan(lost, COHORT).sampling.foreground > 0.5
    assert make_plan(lost, COHORT, {"sampling": {"foreground": 0.3}}).sampling.foreground == 0.3
    with pytest.raises(MedsegError, match="2 labels"):
        make_plan(lost, COHORT, {"sampling": {"label_weights": [1, 2, 3]}})


def test_less_memory_makes_patch_width_and_batch_smaller():
    large = _cases(shape=(400, 400, 300))
    sizes = []
    for gb in (0.45, 0.6, 1.0, 8.0):
        plan = make_plan(large, COHORT, {"memory_gb": gb, "budget_minutes": 600, "cores": 8})
        arguments = plan.network_arguments
        assert unet_gb(plan.patch, plan.batch, arguments, 1, 3) <= gb
        sizes.append(np.prod(plan.patch) * plan.batch * arguments["widths"][0])
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    with pytest.raises(MedsegError, match=r"needs about .* GB, and 1 GB may be used"):
        make_plan(large, COHORT, {"memory_gb": 1.0, "patch": (128, 128, 128)})
    gpu = make_plan(large, COHORT, {"memory_gb": 80, "device": "gpu"})
    assert np.prod(gpu.patch) > np.prod(make_plan(large, COHORT).patch)
    assert gpu.batch > make_plan(_cases(), COHORT, {"memory_gb": 1, "device": "gpu"}).batch / 32


def test_a_faster_machine_trains_more_networks_then_wider_ones():
    plans = [make_plan(_cases(n=200), COHORT, {"budget_minutes": 10, "rate_gflops": r}) for r in RATES]
    work = [p.network_arguments["widths"][0] ** 2 * p.members for p in plans]
    assert work == sorted(work)
    assert work[0] < work[-1]
    assert plans[1].spent.rate_gflops == RATES[1]
    assert digest(plans[0].but(spent=plans[1].spent)) == digest(plans[0]), "what was spent is no choice"


RATES = (30.0, 120.0, 260.0, 520.0, 5000.0)


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


def test_what_follows_from_arguments_by_hand_sees_them():
    narrow = {"budget_minutes": 10, "cores": 2, "network_arguments": {"widths": (4, 8, 16, 32)}}
    wide = {**narrow, "network_arguments": {"widths": (64, 128, 256, 320)}}
    assert make_plan(_cases(), COHORT, narrow).members > make_plan(_cases(), COHORT, wide).members


def test_fewer_levels_by_hand_cut_the_derived_ones():
    arguments = make_plan(_cases(), COHORT, {"network_arguments": {"widths": (8, 16)}}).network_arguments
    assert [len(arguments[name]) for name in ("widths", "strides", "kernels")] == [2, 2, 2]
    arguments = make_plan(
        _cases(), COHORT, {"network_arguments": {"strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2))}}
    ).network_arguments
    assert [len(arguments[name]) for name in ("widths", "strides", "kernels")] == [3, 3, 3]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"spacing_mm": (2, 2, 2), "network_arguments": {"widths": (8, 16, 32, 64)}}, "more levels than the"),
        ({"network_arguments": {"widths": (8, 16), "strides": ((1, 1, 1),)}}, "not equally many"),
        ({"patch": (20, 20, 20), "network_arguments": {"strides": [[1, 1, 1]] + 3 * [[2, 2, 2]]}}, "halved"),
        ({"spacing_mm": (0, 1, 1)}, "spacing_mm"),
        ({"patch": (0, 8, 8)}, "patch"),
        ({"batch": 0}, "batch"),
        ({"members": 99}, "members"),
        ({"memory_gb": -1}, "memory_gb"),
        ({"rate_gflops": 0}, "rate_gflops"),
        ({"precision": "int8"}, "precision"),
        ({"cascade": "yes"}, "cascade"),
        ({"sampling": {"foreground": 2}}, "foreground"),
        ({"region": "liver"}, "no region"),
        ({"class_weights": (1.0, 2.0)}, "is for classes"),
    ],
)
def test_choices_that_do_not_go_together_are_refused_at_once(told, said):
    with pytest.raises(MedsegError, match=said):
        make_plan(_cases(), COHORT, told)


def test_the_reason_of_levels_by_hand_does_not_tell_of_the_derived_ones():
    derived = make_plan(_cases(), COHORT).why["network_arguments"]
    by_hand = make_plan(_cases(), COHORT, {"network_arguments": {"widths": [8, 16, 32]}}).why
    assert by_hand["network_arguments"] == "set by hand: widths; the rest fits its 3 levels"
    norm = make_plan(_cases(), COHORT, {"network_arguments": {"norm": "instance"}}).why
    assert norm["network_arguments"] == f"{derived}; set by hand: norm"


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"spacing_mm": (0.001, 0.001, 0.001)}, "0.001 x 0.001 x 0.001 mm the median image has"),
        ({"cascade": "maybe"}, "plan.cascade = maybe is no cascade"),
        ({"batch": 0}, "choices of the plan: 1 setting"),
        ({"cores": 0}, "what a plan may spend: 1 setting"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_the_words_of_a_plan(choices, said):
    with pytest.raises(MedsegError, match=said):
        make_plan(_cases(), COHORT, choices)


@pytest.mark.parametrize("name", sorted(Fixed.model_fields))
def test_every_choice_can_be_made_by_hand_and_the_rest_derives_itself(name):
    derived = make_plan(_cases(), COHORT)
    by_hand = {
        "region": "image", "region_margin_mm": 3.0, "balance": "loss", "class_weights": (),
        "spacing_mm": (2.0, 2.0, 2.0), "patch": (32, 32, 32), "batch": 5, "members": 2,
        "intensity": {"MR": {"name": "zscore", "settings": {"nonzero": 1.0}}}, "network": "residual_unet",
        "network_arguments": {"norm": "instance"}, "sampling": {"foreground": 0.7},
        "cascade": {"spacing_mm": (4, 4, 4), "patch": (16, 16, 16)},
    }[name]  # fmt: skip
    cohort = SimpleNamespace(**{**vars(COHORT), "classes": ("x", "y")})
    plan = make_plan(_cases(), cohort, {name: by_hand})
    assert "by hand" in plan.why[name]
    later = {"spacing_mm": "patch", "patch": "batch"}.get(name)
    assert later is None or getattr(plan, later) != getattr(derived, later)
    assert set(plan.why) >= set(derived.why)


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
    assert "the usual rate" in plan.why["network_arguments"]
    slow, fast = (make_plan(cases, CLASSES, {"budget_minutes": 1, "rate_gflops": g}) for g in (1, 1e5))
    assert slow.network_arguments["widen_factor"] < fast.network_arguments["widen_factor"] == 1.0
    assert "100000 GFLOP/s on cpu" in fast.why["network_arguments"]


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
