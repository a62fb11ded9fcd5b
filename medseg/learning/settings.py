"""Settings of training and prediction. No torch here: reading a recipe must stay cheap."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from medseg.core.values import Value

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Schedule = Literal["cosine", "poly", "constant"]
Optimizer = Literal["auto", "adamw", "muon"]


class Augmenting(Value):
    """Random changes of the training patches; each amount is the largest one drawn. 0 switches it off.

    Geometry is drawn in mm about the patch's centre: on anisotropic grids rotations out of the fine
    plane shrink with the ratio of the spacings, and in 2-D they stay in the plane.
    """

    rotation_deg: float = Field(default=15.0, ge=0, le=180)
    scale: float = Field(default=0.15, ge=0, lt=1)
    shift: float = Field(default=0.06, ge=0, le=0.5)
    """Share of the patch's side."""
    mirror: tuple[Literal[0, 1, 2], ...] = ()
    """Axes (0 left-right, 1 front-back, 2 up-down) that may be mirrored."""
    elastic: float = Field(default=0.0, ge=0)
    """Standard deviation of smooth local displacements, in voxels of the finest axis."""
    contrast: float = Field(default=0.15, ge=0, lt=1)
    brightness: float = Field(default=0.1, ge=0)
    noise: float = Field(default=0.1, ge=0)
    field: float = Field(default=0.1, ge=0)
    """Slow change over the image, as a receive coil makes it."""
    gamma: float = Field(default=0.0, ge=0, lt=2)
    """Bend of the grey scale: the logarithm of the largest power."""
    blur: float = Field(default=0.0, ge=0)
    """Standard deviation of a Gaussian blur, in voxels; one patch in four is blurred."""
    low_resolution: float = Field(default=0.0, ge=0, lt=1)
    """Share of the voxels an axis that are lost and filled in again (0.5: every other); one patch in four."""


class Training(Value):
    """How a plan is trained. Either a number of epochs or a budget of minutes fixes the length.

    With a budget the schedule is a function of the seconds spent, so that the rate reaches its end
    when the minutes do, on any machine.
    """

    outside_identity: ClassVar[frozenset[str]] = frozenset({"checkpoint_seconds", "baseline", "resident"})

    epochs: int | None = Field(default=None, ge=1)
    budget_minutes: float | None = Field(default=None, gt=0)
    members: int | None = Field(default=None, ge=1, le=10)
    """Networks a fold, from different seeds; their probabilities are averaged and they share the budget.
    The plan's number by default."""
    steps_per_epoch: int | None = Field(default=None, ge=1)
    """By default as many as show each training case once, at least 20 and at most 250."""
    batch: int | None = Field(default=None, ge=1)
    """The plan's by default; of each process, where several train together."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added up before each step: a larger batch in the memory of a small one
    (batch norm and the Dice of the loss still see the small ones)."""
    optimizer: Optimizer = "auto"
    """``adamw``, or ``muon``: kernels move along their momentum made orthogonal, all else by AdamW. auto:
    muon for masks by our own U-Nets from fresh weights, where it was measured to pay; else adamw."""
    rate: float = Field(default=3e-3, gt=0)
    schedule: Schedule = "cosine"
    """How the rate falls after the warm-up: ``cosine`` or ``poly`` (power 0.9) to zero, or ``constant``."""
    patience: int | None = Field(default=None, ge=1)
    """Looks at the monitor cases without a better score after which the training ends early."""
    weight_decay: float = Field(default=1e-2, ge=0)
    warm_up: float = Field(default=0.03, ge=0, lt=1)
    """Share of the training in which the rate rises to its full value."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running mean of the weights, which is what is judged and kept; 0 switches it off."""
    clip: float = Field(default=1.0, gt=0)
    loss: str | None = None
    """A name of the losses' table or ``package.module:function``; by default the task's own."""
    loss_settings: dict[str, Any] = {}
    """Arguments of the loss: ``training.loss_settings.missed=0.8``."""
    foreground: float | None = Field(default=None, ge=0, le=1)
    """Share of patches that are centred on a labelled voxel; the plan's by default."""
    seed: int = Field(default=0, ge=0)
    monitor: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the training patients kept aside to choose the checkpoint: one to eight, of classifications 20
    to 64; 0, or too few patients for that, takes the last."""
    monitor_every: float = Field(default=0.1, gt=0, le=1)
    """Share of the training between two looks at the monitor cases."""
    augment: Augmenting = Augmenting()
    baseline: bool = True
    """Classification: also fit a plain baseline on the same folds, and say what the network is above it."""
    checkpoint_seconds: float = Field(default=10.0, ge=0)
    """A checkpoint is written at the end of an epoch, but not more often than this. Changes no result."""
    precision: Precision = "auto"
    """auto: bfloat16 where the device computes it faster (CUDA, CPUs with AMX or AVX-512 BF16), float16 with
    a scaled loss on older GPUs, else float32."""
    bad_steps: int = Field(default=8, ge=0)
    """Steps that are passed over because loss or gradient is not a number, before the training stops."""
    compile: bool = False
    """Compile the network with ``torch.compile``: worth trying on a GPU, no gain measured on CPUs."""
    resident: bool | None = None
    """Hold the prepared cases in the memory of the device. By default on a GPU with room for them. Changes no
    result."""

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.epochs is not None and self.budget_minutes is not None:
            raise ValueError("give epochs or budget_minutes, not both")
        return self

    def of_member(self, number: int, members: int) -> Training:
        """The settings of one network of several: a seed of its own, and its part of the budget."""
        budget = None if self.budget_minutes is None else self.budget_minutes / members
        return self.but(seed=self.seed + number, budget_minutes=budget, members=None)

    @property
    def length(self) -> tuple[int | None, float | None]:
        """(epochs, budget in seconds): exactly one of them; 50 epochs when neither is set."""
        if self.budget_minutes is not None:
            return None, 60.0 * self.budget_minutes
        return self.epochs or 50, None


class Tuning(Value):
    """How carried weights are tuned. Shares count from the start of the training, 0 to 1.

    Each part of the network has a depth: the stem 0, the stages of encoder and decoder in order, the
    head the largest.
    """

    frozen: tuple[Literal["stem", "encoder", "decoder"], ...] = ()
    """Parts whose carried weights never move, running statistics included."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """The rate of a layer is that of the head times this, once for each step of depth between them."""
    unfreeze: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training over which layers are freed one by one, from the head down to the stem."""
    head_warm_up: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training in which only new weights move: a new head does not spoil what was carried."""


class Pretext(Value):
    """Training without labels: the network fills in what was hidden in an image and takes off its noise."""

    budget_minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    """Either this many steps, or a budget of minutes; 1000 steps when neither is set."""
    batch: int | None = Field(default=None, ge=1)
    """The plan's by default."""
    rate: float = Field(default=3e-3, gt=0)
    hidden: float = Field(default=0.5, ge=0, lt=1)
    """Share of a patch that is hidden, in blocks."""
    block: int = Field(default=8, ge=1)
    """Side of the blocks, in voxels (one along flat axes)."""
    noise: float = Field(default=0.3, ge=0)
    """Standard deviation of the noise added, on the scale of the prepared image."""
    seed: int = Field(default=0, ge=0)
    parts: tuple[Literal["stem", "encoder", "decoder"], ...] = ("stem", "encoder")
    """What is handed on. A decoder that has learnt to give images back did harm where it was measured."""
    augment: Augmenting = Augmenting(contrast=0.0, brightness=0.0, noise=0.0, field=0.0)


UNPINNED = "unpinned"
"""In the place of a sha256: whatever the address gives is taken."""


class Transfer(Value):
    """Weights a training begins from: where they are, which of them are carried, how they are tuned."""

    outside_identity: ClassVar[frozenset[str]] = frozenset(
        {"source", "format", "sha256", "prefix", "licence", "origin", "adopt", "twin"}
    )
    """What says where the weights come from: their content counts, through the ``weights`` stage."""

    source: str = ""
    """A file or folder, ``hf:owner/repo/file[@revision]``, or ``https://...``."""
    format: str = "auto"
    """auto, medseg, bundle, medicalnet, swinunetr, imagenet, nnunet, weights or state (any state dict)."""
    sha256: str = Field(default="", pattern=r"^([0-9a-fA-F]{64}|unpinned)?$")
    """Of the file; needed for what comes from elsewhere. ``unpinned`` takes whatever comes."""
    prefix: dict[str, str] = {}
    """What the names of the weights begin with -> what they begin with in our network."""
    parts: tuple[Literal["stem", "encoder", "decoder", "head"], ...] = ("stem", "encoder", "decoder", "head")
    """What to carry."""
    floor: float = Field(default=0.5, ge=0, le=1)
    """The training stops when less than this share of the parameters of stem and encoder can be carried."""
    inflation: Literal["repeat", "centre"] = "repeat"
    """How 2-D kernels become 3-D ones: spread over the depth, or in its middle."""
    adopt: bool = True
    """Take the network the weights were made for, where they tell it and the recipe sets none."""
    mode: Literal["finetune", "frozen"] = "finetune"
    """frozen: stem and encoder stand still, running statistics included; decoder and head are trained."""
    tuning: Tuning = Tuning()
    twin: bool = False
    """Also train from fresh weights on the same folds, and compare the two with intervals."""
    licence: str = ""
    """Of the weights: goes into the model card."""
    origin: str = ""
    """Who made the weights, from which data, in words: goes into the model card."""

    @field_validator("sha256")
    @classmethod
    def _lower(cls, given: str) -> str:
        return given.lower()

    @model_validator(mode="after")
    def _pinned(self) -> Transfer:
        if self.remote and not self.sha256:
            raise ValueError(
                f"{self.source} is not on this machine: give its sha256 (or {UNPINNED}, to take what comes)"
            )
        return self

    @property
    def remote(self) -> bool:
        """Whether the source is fetched over a network."""
        return self.source.startswith(("hf:", "http://", "https://"))

    def tuned(self) -> Tuning:
        """How the carried weights are tuned: as set, and standing still where the mode says so."""
        if self.mode == "finetune":
            return self.tuning
        return self.tuning.but(frozen=tuple(dict.fromkeys((*self.tuning.frozen, "stem", "encoder"))))


class Adaptation(Value):
    """How a model is brought to images of another site, of which no labels are known."""

    method: str = "none"
    """``histogram``, ``adabn``, ``fourier``, ``adversarial_features``, ``adversarial_output``,
    ``self_training``; several joined by ``+`` follow one another; ``none``: only the shift is reported."""
    training: Training = Training(epochs=20, rate=1e-3, monitor=0.0)
    """Of the methods that train on: from the weights of the model. Without monitor cases the last weights
    are kept: monitor cases are the source's, and would choose the least adapted ones."""
    weight: float | None = Field(default=None, gt=0)
    """Of the method's part of the loss; by default 1 (fourier, self_training) or 0.1 (adversarial)."""
    share: float = Field(default=0.1, gt=0, le=1)
    """fourier: frequencies up to this share of the highest have their amplitudes exchanged."""
    restate: bool = True
    """Methods that train on source cases: estimate the batch statistics on target images at the end."""
    windows: int = Field(default=64, ge=1)
    """adabn: patches of the target that the statistics come from."""
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    """self_training: voxels (cases) of which the teacher is less sure count for nothing."""
    rounds: int = Field(default=1, ge=1, le=5)
    """self_training: the pupil becomes the teacher of the next round."""

    @property
    def steps(self) -> tuple[str, ...]:
        """The methods in their order; none for ``none``."""
        return tuple(name for name in self.method.split("+") if name != "none")


class Prediction(Value):
    """How a model is used on an image."""

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share by which neighbouring windows overlap."""
    batch: int = Field(default=4, ge=1)
    """Windows computed at once."""
    mirror: tuple[Literal[0, 1, 2], ...] = ()
    """Axes to mirror for averaging: only those that training mirrored make sense."""
    turn_deg: float = Field(default=0.0, ge=0, le=45)
    """The image is also looked at turned by this angle about each axis, to both sides, and the answers are
    averaged: seven passes in place of one, in 2-D three. Out of a finer plane as little as training turns."""
    zoom: float = Field(default=0.0, ge=0, lt=0.5)
    """... and enlarged and shrunk by this share: two more passes."""
    precision: Precision = "float32"

    def changed(self, given: Prediction | None) -> Prediction:
        """These settings with those in their place that were set in `given`."""
        return self.but(**{name: getattr(given, name) for name in given.model_fields_set}) if given else self


class Explaining(Value):
    """How it is shown where a model looked, and how the picture is checked."""

    outside_identity: ClassVar[frozenset[str]] = frozenset({"cases", "batch"})

    method: Literal["gradcam", "gradcam++", "occlusion"] = "gradcam"
    cases: int = Field(default=5, ge=0)
    """Cases of a training run that are explained: the worst of those judged; 0 none."""
    targets: tuple[str, ...] = ()
    """Classes or labels; by default what was predicted."""
    region: Literal["predicted", "reference"] = "predicted"
    """Segmentation: whose voxels of the label are asked about."""
    layer: str = ""
    """Grad-CAM: name of the module whose features are weighed; by default the last that is not too coarse."""
    window_mm: float | None = Field(default=None, gt=0)
    """Occlusion: side of what is covered; by default an eighth of the longest side of the network's view."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Occlusion: share by which neighbouring covers overlap."""
    fill: Literal["mean", "background", "blur"] = "mean"
    """What hidden voxels become: the mean of the view, the median of its border, or the view blurred."""
    blocks: int = Field(default=8, ge=2, le=64)
    """Check: blocks along the longest side that are hidden one after another."""
    steps: int = Field(default=6, ge=2)
    """Check: points of a deletion curve after the first."""
    draws: int = Field(default=8, ge=3)
    """Check: random orders the map is held against."""
    seed: int = Field(default=0, ge=0)
    batch: int = Field(default=8, ge=1)
    """Windows computed at once. Changes no result."""
