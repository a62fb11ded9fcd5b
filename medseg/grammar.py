"""The grammar of the command line: each verb, what it says of itself, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Argument:
    """One argument of a verb: names and the keywords of ``add_argument``."""

    names: tuple[str, ...]
    options: dict[str, object]


def _arg(*names: str, **options: object) -> Argument:
    return Argument(names, options)


RUN = _arg("--run", metavar="DIR", help="where results go (default: runs/<name>)")
SETTINGS = _arg("overrides", nargs="*", metavar="key=value", help="settings, for example training.epochs=5")
_PLAN_SETTINGS = _arg(
    "overrides",
    nargs="*",
    metavar="key=value",
    help="choices made by hand, and what they are made for: patch=[96,96,64], spacing_mm=[1,1,2], "
    "network=segresnet, batch=4, cascade=true, budget_minutes=10, memory_gb=8, device=gpu, ...; the training "
    "to reckon with: epochs=50, training.batch=4, ...; cases: channels=[t1,flair], dicom.tilt=shear, ...",
)
_TRAIN_SETTINGS = _arg(
    "overrides",
    nargs="*",
    metavar="key=value",
    help="settings of the recipe: training.epochs=5, plan.patch=[96,96,64], split.folds=5, "
    "candidates=3d,2d, cohort.root=DIR, ...",
)
_MODEL = _arg(
    "model", metavar="MODEL", help="a model folder, a fold's folder, or a run folder (all its folds)"
)
_TOLERANCE = _arg("--tolerance-mm", type=float, metavar="MM", help="tolerance of NSD (default: 1.0)")
_SCORING = _arg(
    "overrides",
    nargs="*",
    metavar="key=value",
    help="choices of the measurement: resample=true, ignore=255, metrics=[dice,hd95,lesion_f1], "
    "lesions.minimum_ml=0.05, margins.dice=0.02, repeats=5000, ...; evaluate: marks=marks.yaml too",
)
_LABELS = _arg(
    "--labels",
    metavar="name=1,other=2",
    help="label names and values; overlapping regions as sums: whole=1+2+4,core=1+4; ignore=255: not known",
)
_FORMATS = _arg(
    "--format", default="nifti", metavar="nifti,seg,rtstruct,sr", help="what to write for each case"
)
_PREDICT_SETTINGS = _arg(
    "overrides",
    nargs="*",
    metavar="key=value",
    help="settings: dicom.tilt=shear keeps the voxels of a tilted gantry, dicom.burned_in=take, "
    "dicom.uneven=resample, dicom.gaps=resample, select=RULES.yaml, align=true, output.seg=labelmap, "
    "output.holes=inner, ...",
)
_INGEST_SETTINGS = _arg(
    "overrides",
    nargs="*",
    metavar="key=value",
    help="settings: dicom.tilt=shear, dicom.uneven=resample, dicom.gaps=resample, dicom.burned_in=take, "
    "dicom.secondary=take, ingest.label_threshold=0.5, ingest.label_map.255=1, ingest.align=true, "
    "ingest.dates=shifted, ids=names, select.modality=CT, ...",
)
_COHORT = [
    _arg(
        "--cohort-format",
        default="auto",
        metavar="FORMAT",
        help="auto, msd, nnunet, nifti, csv, dicom, classes",
    ),
    _LABELS,
]

VERBS: dict[str, tuple[str, list[Argument]]] = {
    "demo": ("phantom patients as DICOM all the way to a report and DICOM SEG", [RUN]),
    "ingest": (
        "images of any layout -> one folder a case, and a table of what was taken, skipped, refused",
        [
            _arg("src", metavar="SRC", help="folder, zip, MSD or nnU-Net data set, CSV/JSON manifest, DICOM"),
            _INGEST_SETTINGS,
            RUN,
            *_COHORT,
            _arg("--select", metavar="RULES.yaml", help="which series of a DICOM study to take, as what"),
            _arg(
                "--dry-run", action="store_true", help="show what would be taken and why not; write nothing"
            ),
            _arg(
                "--show-text",
                action="store_true",
                help="with --dry-run: show descriptions and file names though nobody sits at a terminal",
            ),
        ],
    ),
    "audit": (
        "what is wrong or unusual in a cohort, with proposed mends",
        [_arg("folder", metavar="DIR", help="a data set, or a run folder that was ingested"), RUN, *_COHORT],
    ),
    "plan": (
        "cohort -> plan.yaml: every choice with its reason",
        [
            _arg("folder", metavar="DIR", help="a data set, or a run folder that was ingested"),
            _arg("--preview", action="store_true", help="also draw to preview.png what augmentation does"),
            RUN,
            *_COHORT,
            _PLAN_SETTINGS,
        ],
    ),
    "train": (
        "a recipe (YAML) -> models and scores; goes on where it was cut off",
        [_arg("config", metavar="CONFIG", help="a YAML file, see configs/"), _TRAIN_SETTINGS, RUN],
    ),
    "sweep": (
        "a recipe with several values of some settings -> which pay, judged by cross-validation",
        [
            _arg("config", metavar="CONFIG", help="a YAML file, see configs/"),
            _arg(
                "overrides",
                nargs="*",
                metavar="key=a,b",
                help="settings to try: training.rate=1e-3,3e-4 plan.network=unet,segresnet; with --trials "
                "also ranges: training.rate=1e-4..1e-2:log; a single value is the same for all trials",
            ),
            _arg("--trials", type=int, metavar="N", help="so many points of a search, in place of them all"),
            _arg("--folds", type=int, metavar="N", help="train only so many of the folds: a cheaper look"),
            RUN,
        ],
    ),
    "predict": (
        "a model on new images: a mask for each, on its own grid",
        [
            _MODEL,
            _arg("src", metavar="SRC", help="a NIfTI file, a folder of cases, or a DICOM study"),
            _arg("out", metavar="OUT", help="folder for OUT/<case>.nii.gz and OUT/report.json"),
            _PREDICT_SETTINGS,
            _FORMATS,
        ],
    ),
    "evaluate": (
        "two folders of masks (or two class tables) -> scores with intervals, and a report",
        [
            _arg("pred", metavar="PRED", help="folder of predicted masks, or a class table"),
            _arg("ref", metavar="REF", help="folder of reference masks, or a class table"),
            _arg("out", metavar="OUT", help="folder for scores.csv, summary.json and the report"),
            _SCORING,
            _arg("--labels", metavar="name=1,both=1+2", help="label names and values; regions as sums"),
            _TOLERANCE,
            _arg("--images", metavar="DIR", help="images of the same names, shown under the contours"),
            _arg("--groups", metavar="CSV", help="columns by case (site, sex, ...): a table of subgroups"),
            _arg("--quality", metavar="CSV", help="case,quality: a score to be held against Dice"),
            _arg("--probabilities", metavar="DIR", help="maps of the same names: a FROC curve of lesions"),
            _arg(
                "--reader",
                metavar="NAME=DIR",
                action="append",
                help="masks of a further reader: agreement between readers (repeat for several)",
            ),
        ],
    ),
    "validate": (
        "a model on a cohort it has never seen, against acceptance criteria: PASS or FAIL",
        [
            _arg(
                "model",
                metavar="MODEL",
                help="a model or run folder, a MONAI bundle, a folder of masks, or a class table",
            ),
            _arg("cohort", metavar="COHORT", help="a data set with references"),
            _arg(
                "overrides",
                nargs="*",
                metavar="key=value",
                help="settings: leakage=exclude, training=RUN, marks=marks.yaml, scoring.tolerance_mm=2, "
                "trust=true, ...",
            ),
            RUN,
            *_COHORT,
            _arg("--accept", metavar="YAML", help="acceptance criteria, see configs/validation/"),
        ],
    ),
    "compare": (
        "two score tables on the same cases: paired differences with intervals",
        [
            _arg("a", metavar="A", help="a scores.csv, or a folder that holds one"),
            _arg("b", metavar="B", help="the other one"),
            _arg("out", metavar="OUT", help="folder for the comparison"),
            _SCORING,
        ],
    ),
    "report": (
        "draw a report again from its table of scores: the same table, the same bytes",
        [_arg("folder", metavar="FOLDER", help="of evaluate, validate, train or compare")],
    ),
    "view": (
        "a report with its cases in 3-D, in the browser, on this machine alone",
        [
            _arg("place", metavar="PLACE", help="a run folder, a report, RUN/ingest/<case>, or a NIfTI file"),
            _arg("--case", default="", metavar="ID", help="open this case right away"),
            _arg("--images", metavar="DIR", help="images by case name, where PLACE does not hold them"),
            _arg("--reference", metavar="DIR", help="reference masks by case name"),
            _arg("--prediction", metavar="DIR", help="predicted masks by case name"),
            _arg("--labels", default="", metavar="name=1,other=2", help="label names and values"),
            _arg("--no-browser", action="store_true", help="only print the address"),
        ],
    ),
    "explain": (
        "where a model looked: a map for each case, held against chance",
        [
            _MODEL,
            _arg("src", metavar="SRC", help="images as for predict, or a run folder"),
            _arg("out", metavar="OUT", help="folder for OUT/explain/<case>/ and OUT/report/index.html"),
            _arg(
                "overrides",
                nargs="*",
                metavar="key=value",
                help="settings: targets=[kidney], layer=layer3, region=reference, fill=blur, ...",
            ),
            _arg(
                "--method",
                choices=["gradcam", "gradcam++", "occlusion"],
                default="gradcam",
                help="how the map is made (default: gradcam)",
            ),
            _arg("--cases", default="", metavar="worst:5|ID,ID", help="which cases (default: all)"),
        ],
    ),
    "adapt": (
        "a model and images of another site, without labels -> how far they lie apart, and an adapted model",
        [
            _MODEL,
            _arg("target", metavar="TARGET", help="images of the other site; labels there are not read"),
            _arg("out", metavar="OUT", help="folder for OUT/shift.json and OUT/adapt/<model>/model"),
            SETTINGS,
            _arg(
                "--method",
                default="none",
                metavar="METHOD",
                help="histogram, adabn, fourier, adversarial_features, adversarial_output, self_training, "
                "several joined by +; none (default): only report the shift",
            ),
            _arg("--source", metavar="RUN", help="run folder of the training, if the model lies elsewhere"),
            _COHORT[0],
        ],
    ),
    "probe": (
        "what a frozen encoder tells of classes: a linear and a nearest-neighbour classifier on its features",
        [
            _arg("source", metavar="MODEL", help="a model folder, or weights as transfer.source takes them"),
            _arg("cohort", metavar="COHORT", help="images with classes"),
            RUN,
            *_COHORT,
            SETTINGS,
        ],
    ),
    "export": (
        "a model in another form",
        [
            _MODEL,
            _arg("out", metavar="OUT", help="folder to write"),
            _arg(
                "--to",
                choices=["bundle", "onnx", "openvino"],
                default="bundle",
                help="MONAI bundle (default) or the network alone",
            ),
        ],
    ),
    "import-weights": (
        "published weights -> a folder that a recipe's transfer.source takes; converts nnU-Net checkpoints",
        [
            _arg("src", metavar="SRC", help="a file, a folder, hf:owner/repo/file[@revision], or an address"),
            _arg("out", metavar="OUT", help="folder to write"),
            _arg(
                "--format",
                default="auto",
                metavar="FORMAT",
                help="auto, medseg, bundle, medicalnet, swinunetr, imagenet, nnunet (never by itself), state",
            ),
            _arg("--sha256", default="", metavar="HEX", help="of the file; needed for what is fetched"),
            _arg(
                "--prefix",
                action="append",
                default=[],
                metavar="THEIRS=OURS",
                help="what names begin with there, and here; may be given several times",
            ),
        ],
    ),
    "fetch": (
        "download a public data set: asked for by you, checked, resumed when cut off",
        [
            _arg(
                "name",
                metavar="NAME",
                help="msd-hippocampus, msd-spleen, ... ('medseg fetch list' shows all)",
            ),
            _arg("folder", metavar="DIR", nargs="?", default=".", help="where it goes (default: here)"),
            _arg("--url", help="another address of the same archive"),
        ],
    ),
    "pacs": (
        "fetch from, send to, or serve an archive: pull KEY=VALUE... OUT, push FILES, listen MODEL, echo",
        [
            _arg("action", choices=["pull", "push", "listen", "echo"]),
            _arg(
                "words",
                nargs="*",
                metavar="WORD",
                help="pull: PatientID=... StudyDate=FROM-TO Modality=CT ... OUT; push: files and folders; "
                "listen: a model; with all: key=value settings, for example pacs.host=archive",
            ),
            _arg("--config", metavar="YAML", help="settings, see configs/pacs/"),
            _arg("--dry-run", action="store_true", help="pull: only tell what would be fetched"),
            _arg("--receipt", metavar="FILE", help="push: what is written down here is not sent again"),
            _arg("--format", default="seg", metavar="seg,rtstruct,sr", help="listen: what is sent back"),
            _arg("--run", metavar="DIR", help="listen: the spool (default: runs/<name>)"),
        ],
    ),
    "doctor": ("versions, devices, memory, codecs; what is missing and the line that mends it", []),
}
