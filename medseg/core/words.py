"""Words that name nobody: what of a name may stand where others read it.

File and folder names of images are often patients' names, numbers or dates of birth. Nobody can list all
names, so the words that cannot be one are listed: ``case_017`` stays, ``Muster_Hans_1957`` does not.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable

SHOW_VARIABLE = "MEDSEG_SHOW_PATHS"
LONGEST_NUMBER = 5
"""Digits, after leading zeros, that a study's own number may have; longer ones may be a patient's."""
SHORT = 3
"""Letters an unknown word may have; one a name: ``UCL_002``, not ``Kim_Lee``."""

_WORDS = """
case patient subject person study studies series session visit scan image img picture volume vol slice frame
stack data dataset set sample example demo phantom test train training tr ts val valid validation eval fold
part new old first second third last final raw pre post before after copy day week month year time point
timepoint baseline follow followup control group site center centre hospital scanner run rep repeat sub ses
acq dir task rec desc space res id no nr num number anon anonymous anonymized unknown left right upper lower
front back top bottom side lateral medial anterior posterior male female adult child bad broken empty extra
other large small big tiny little same stray stranger twin alone one two three four zero truncated damaged
again missing corrupt junk dirty clean wrong odd even gap tilt tilted uneven mixed compressed enhanced multi
multiframe mosaic single double plain
ct mr mri pt pet us cr dx mg dsa xa nm spect cbct cta mra cxr xray ray radiograph ultrasound dicom dcm
dicomdir ima nii nifti gz png jpg jpeg bmp tif tiff tar zip csv json yaml yml html txt npy mha mhd nrrd
label lab mask seg segmentation reference ref gt ground truth rtstruct struct contour annotation manual auto
expert reader rater prediction pred result output input tmp temp source target report archive export import
axial ax coronal cor sagittal sag oblique transverse plane native contrast ce portal venous arterial
nephrographic delayed late early phase flair stir swi dwi adc dti dce dsc asl bold fmri epi tse tfe gre spgr
mprage mp2rage vibe haste trufi dixon water fat inphase outphase opposed echo echoes magnitude real
imaginary diffusion perfusion fid spoiled fast spin gradient localizer scout topogram survey weighted
resolution high low thin thick iso isotropic anisotropic kernel soft bone standard std recon mip mpr sub
subtraction dynamic static rest map mean sum norm normalized registered resampled cropped crop defaced
stripped bias corrected syntax syntaxes
brain head neck skull face hippocampus hippocrop amygdala thalamus cortex cerebellum ventricle white gray
grey matter eye orbit ear nose sinus mouth jaw tooth teeth mandible thyroid larynx spine cervical thoracic
lumbar sacrum vertebra vertebrae disc cord chest thorax lung lobe airway bronchus trachea heart cardiac
atrium ventricular myocardium aorta artery arteries vein vessel vascular coronary breast rib abdomen
abdominal liver hepatic hepaticvessel spleen kidney renal adrenal pancreas pancreatic stomach gastric
duodenum bowel colon rectum rectal esophagus oesophagus gallbladder bladder prostate uterus ovary pelvis
pelvic hip femur knee tibia ankle foot shoulder humerus elbow wrist hand finger arm leg muscle skin fat body
whole wholebody organ nodule node lymph cell nerve tissue
normal abnormal healthy ill well sick benign malignant cancer tumor tumour lesion metastasis metastases
glioma glioblastoma meningioma cyst calcification hyperplasia edema oedema necrosis core enhancing bleeding
hemorrhage haemorrhage infarct stroke fracture pneumonia covid tuberculosis tb effusion nodular polyp
stenosis plaque positive negative class classes
msd decathlon brats bratsgli hippocampus lidc idri luna tcga tcia kits lits btcv amos flare acdc camus verse
totalsegmentator chaos oasis adni ixi abide hcp isles wmh picai prostatex promise hecktor autopet deepliver
mednist busi isic mcucxr chncxr montgomery shenzhen siim rsna vindr mimic nih nlst openneuro medseg nnunet
monai imagestr imagests labelstr labelsts stereotaxis
siemens philips ge toshiba canon hitachi uih agfa fuji hologic esaote hyperfine vida trio prisma skyra
home root usr var opt srv mnt media user work workspace project shared share private public store storage
archive disk drive pytest of in out at to and the with without for from on by or not index file folder dir
directory version
"""
PLAIN = frozenset(_WORDS.split())
"""Words of studies, techniques, anatomy, findings, data sets, makers, folders; plurals go with them."""

_CHUNK = re.compile(r"[^\W_]+")
_RUN = re.compile(r"\d+|[^\W\d_]+")
_HASH = re.compile(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{10,}")
_PARTS = re.compile(r"([/\\]|(?<=series )[0-2](?:\.\d+){5,}(?=\)))")  # a series can be looked up
_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-_. ]?(?:0[1-9]|1[0-2])[-_. ]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|[12]\d|3[01])[-_. ]?(?:0[1-9]|1[0-2])[-_. ]?(?:19|20)\d\d)(?!\d)"
)


def names_nobody(text: str, shared: Collection[str] = ()) -> bool:
    """Whether a name is made of study words and study numbers alone.

    Parameters
    ----------
    text : str
        A file's or folder's name without its place.
    shared : collection of str
        Further words, in lower case, that are known to be the study's own.

    Examples
    --------
    >>> [names_nobody(t) for t in ("case_017", "sub-01_ses-02_T1w", "Muster_Hans", "scan_1957-03-12")]
    [True, True, False, False]
    """
    return not _strange(text, shared)


def words_of(text: str) -> set[str]:
    """The words of a name in lower case: split at digits, separators and changes of case."""
    runs = [run for run in _RUN.findall(text) if not run.isdigit()]
    return {word.lower() for run in runs for word in (run, *_parts(run))}


def shared_words(names: Iterable[str]) -> set[str]:
    """Words that more than half of the names have, three of them at least: the study's, not a patient's."""
    several = list(names)
    times = Counter(word for name in several for word in words_of(name))
    return {word for word, n in times.items() if n >= 3 and 2 * n > len(several)}


def masked(text: str) -> str:
    """A path in which words and numbers that may name somebody are replaced by ``...``.

    >>> masked("/data/Muster^Hans/series-2/IM0003"), masked("study/slice_014.dcm")
    ('/data/.../series-2/IM0003', 'study/slice_014.dcm')
    """
    parts = [part if n % 2 else _masked_part(part) for n, part in enumerate(_PARTS.split(text))]
    return re.sub(r"\.\.\.(?:[\W_]*\.\.\.)+", "...", "".join(parts))


def may_show() -> bool:
    """Whether paths may be shown whole: to a person at a terminal, or when MEDSEG_SHOW_PATHS is set."""
    return os.environ.get(SHOW_VARIABLE, "") not in ("", "0") or (
        sys.stderr is not None and sys.stderr.isatty()
    )


def shown(path: str) -> str:
    """The path as it may be shown here: whole, or masked with a word on how to see it."""
    if may_show():
        return path
    safe = masked(path)
    return safe if safe == path else f"{safe} ({SHOW_VARIABLE}=1 shows it whole)"


def _masked_part(part: str) -> str:
    for date in _DATE.findall(part):
        part = part.replace(date, "...")
    strange = _strange(part)
    if not strange:
        return part
    return _CHUNK.sub(lambda m: m[0] if _HASH.fullmatch(m[0]) else _masked_chunk(m[0], strange), part)


def _masked_chunk(chunk: str, strange: Collection[str]) -> str:
    return _RUN.sub(lambda m: "..." if m[0] in strange else m[0], chunk)


def _strange(text: str, shared: Collection[str] = ()) -> list[str]:
    """The runs of letters or digits that are neither study words nor study numbers."""
    chunks = [c for c in _CHUNK.findall(text) if not _HASH.fullmatch(c)]
    runs = [run for chunk in chunks for run in _RUN.findall(chunk)]
    long = [r for r in runs if r.isdigit() and len(r.lstrip("0")) > LONGEST_NUMBER]
    unknown = {r: _unknown(r, shared) for r in runs if not r.isdigit()}
    long += [r for r, words in unknown.items() if any(len(w) > SHORT or not w.isascii() for w in words)]
    short = [r for r, words in unknown.items() for _ in words if r not in long]
    dates = [run for date in _DATE.findall(text) for run in _RUN.findall(date)]
    return [*long, *dates, *(short if len(short) > 1 else [])]


def _unknown(run: str, shared: Collection[str]) -> list[str]:
    """The words of a run of letters that are not known; single letters say nothing."""

    def known(word: str) -> bool:
        low = word.lower()
        plain = low in PLAIN or low in shared or low.removesuffix("s") in PLAIN
        return plain or (len(word) == 1 and word.isascii())

    return [] if known(run) else [word for word in _parts(run) if not known(word)]


def _parts(run: str) -> list[str]:
    """A run of letters split where the case changes: ``CTScan`` is ``CT`` and ``Scan``."""
    starts = [0]
    for i in range(1, len(run)):
        small_then_big = run[i - 1].islower() and run[i].isupper()
        last_big = run[i - 1].isupper() and run[i].isupper() and run[i + 1 : i + 2].islower()
        if small_then_big or last_big:
            starts.append(i)
    return [run[a:b] for a, b in zip(starts, [*starts[1:], len(run)], strict=True)]
