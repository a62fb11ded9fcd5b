"""Beside each panel: what good and what bad look like."""

from __future__ import annotations

GUIDE: dict[str, str] = {
    "run": "Good: every version and digest is filled in, so that this page can be made again. "
    "Bad: anything unknown here makes the numbers below unrepeatable.",
    "cohort": "Good: few refusals, each with a reason, and test cases that look like the training"
    " cases. Bad: a group, scanner or spacing that only one part has.",
    "curves": "Good: loss falls and flattens, Dice on the monitor cases rises and stays. Bad: "
    "Dice falls again while loss still falls (overfitting), jumps (rate too high), or "
    "both still improve at the end (stopped too early). The ring marks the best epoch; "
    "a waiting share near 0 means the data came fast enough.",
    "table": "Good: narrow intervals and no missed or invented structure. Bad: a wide interval "
    "(too few patients to tell), or a good mean with counts beside it that are not "
    "zero.",
    "distribution": "Good: a tight cloud at the good end. Bad: a long tail or a second cloud: a group "
    "of cases the model does not understand. Hollow dots are missed, invented or "
    "unpredicted structures.",
    "volumes": "Good: dots scattered evenly about zero, inside the dashed limits (bands: their "
    "intervals). Bad: a bias off zero (over- or under-segmentation), or a slope (large "
    "structures cut short).",
    "gallery": "Good: even the first cases here are nearly right, and typical ones look like the "
    "best. Bad: a contour in the wrong place, on the wrong side, or missing, or one "
    "kind of failure in many cases.",
    "gallery_classes": "Good: the first cases here are hard for a person too, or mislabelled. Bad: plain "
    "cases among the first, or many of one class or one look. Ranked by the probability"
    " of the case's own class.",
    "cases_classes": "Good: a wrong answer is an unsure one. Bad: a wrong class with a probability near 1.",
    "cases": "Good: both lines run together and the error map is a thin rim. Bad: a filled patch"
    " of one colour there (a part that was missed or added). The dashed white line is "
    "the reference, the coloured line the prediction; beside them the voxels that "
    "differ.",
    "classes": "Good: ROC curves in the upper left corner, precision far above the dotted line of "
    "prevalence, and a dark diagonal. Bad: a curve near the dashed diagonal, or one "
    "class that another swallows (a dark cell off the diagonal).",
    "calibration": "Good: dots on the dashed diagonal (of cases given 0.8, eight in ten have the "
    "class), slope 1, intercept 0; net benefit above both treating all (dotted) and "
    "treating none (zero). Bad: an S-shaped line (over- or underconfident), or net "
    "benefit below either within the thresholds one would use.",
    "lesions": "Good: nearly all lesions found, few false positives a scan, and small ones found "
    "as well. Bad: a high Dice beside many missed lesions: the large ones hide them.",
    "subgroups": "Good: every interval holds the dashed line (the mean over all cases). Bad: a "
    "filled dot (p below 0.05 after Holm) away from it: the model works less well for "
    "that group. Grey: too few patients to judge, shown all the same.",
    "readers": "Good: the model agrees with the readers as well as they agree with each other. "
    "Bad: a difference whose whole interval is on the worse side: a reader would be "
    "preferred.",
    "quality": "Good: the line falls fast and stays far below the dashed one: reviewing few cases "
    "catches most failures. Bad: a line along the dashed one: the score knows nothing "
    "of the error.",
    "precision": "Good: half-widths smaller than the difference that matters to you. Bad: an "
    "interval so wide that a useless and a useful model both lie inside; the last "
    "column says how many patients it takes.",
    "checklists": "Good: every blank is filled by the authors before it is sent. Bad: a blank that "
    "nobody can fill: the study does not know it either. What the run knows is filled "
    "in.",
    "compare": "Good: an interval clear of the middle line on the side of B, with the bar to "
    "match. Bad: a mean in favour of B that few cases carry, or an interval over the "
    "line called a gain. A filled dot: p below 0.05 after Holm; each line has its own "
    "scale.",
    "compare_cases": "Good: dots above the dashed line all along. Bad: gains on easy cases and losses on"
    " hard ones: look at those listed first.",
    "looked": "Good: the mark lies on the structure that matters, and hiding what it marks takes "
    "the answer away faster than hiding places at random. Bad: a mark on borders, "
    "lettering or instruments, or a map no better than random: such a picture explains "
    "nothing. Yellow is the strongest evidence. The small plots show the probability "
    "while blocks are hidden: orange in the order of the map, grey at random (mean and "
    "range).",
    "failures": "Good: nothing here. Bad: any case here is missing from the numbers above, or "
    "counts as missed in them.",
}
"""Section -> what good and bad look like."""
