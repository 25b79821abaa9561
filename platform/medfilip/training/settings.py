"""Everything that decides a training run, as one validated object."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medfilip.core.settings import Settings, operational
from medfilip.model.config import ModelConfig
from medfilip.model.contrastive import Exchange
from medfilip.model.objectives import Objective
from medfilip.similarity.tables import SimilarityWeights


class AugmentSettings(Settings):
    """Changes of an image that leave its findings as they are, or change them with it."""

    enabled: bool = Field(default=True, description="augment training images")
    shift: float = Field(default=0.05, ge=0, le=0.3, description="largest shift, as a fraction of the side")
    scale: float = Field(default=0.08, ge=0, le=0.3, description="largest relative change of size")
    rotation: float = Field(default=6.0, ge=0, le=30, description="largest rotation, in degrees")
    gamma: float = Field(default=0.2, ge=0, le=1, description="largest change of the logarithm of gamma")
    blur: float = Field(default=0.0, ge=0, le=3, description="largest blur of half of the images, in pixels")
    noise: float = Field(default=0.02, ge=0, le=0.5, description="noise, as a fraction of the grey range")
    flip: float = Field(
        default=0.0, ge=0, le=1, description="share of images that are mirrored, with left and right of their findings"
    )


class TargetSettings(SimilarityWeights):
    """The similarity as training uses it: silence counts a little.

    Masked out altogether, it would leave nothing to learn from for what is only ever reported when it is there.
    """

    silent: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="weight of counting a category the report is silent about as absent, less for what is often "
        "denied; 0 masks it out",
    )


class TrainSettings(Settings):
    """Settings of ``pretrain``; the defaults learn a small corpus from scratch in minutes on a CPU."""

    model: ModelConfig = ModelConfig()
    objective: Objective = Field(
        default="soft_sigmoid", description="soft_sigmoid, soft_infonce, mse_bce (the authors') or infonce (baseline)"
    )
    focus: float = Field(
        default=2.0,
        ge=0,
        le=5,
        description="texts of categories that are learned already count less (pairwise objectives); 0: all alike",
    )
    similarity: TargetSettings = TargetSettings()
    augment: AugmentSettings = AugmentSettings()
    unit: Literal["study", "image"] = Field(
        default="study", description="study: the images of a study are pooled; image: each stands for itself"
    )
    max_images: int = Field(default=2, ge=1, le=8, description="images of a study in one step")
    unseen: tuple[str, ...] = Field(
        default=(), description="categories that are left out of training, to be diagnosed by their attributes alone"
    )
    epochs: int = Field(default=80, ge=1, le=10_000, description="passes over the training pairs")
    global_batch: int = Field(default=32, ge=2, le=65_536, description="studies per step over all processes together")
    max_texts: int = Field(default=12, ge=1, le=200, description="texts drawn for one study in one step")
    text_balance: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="where a study has more findings than max_texts, rare ones come first: exponent of the frequency",
    )
    hard_negatives: int = Field(
        default=2, ge=0, le=50, description="altered texts for one study in one step: other side, severity, opposite"
    )
    ranking: float = Field(
        default=0.4,
        ge=0,
        le=10,
        description="weight of ranking a finding above itself with another side or severity (soft objectives); it "
        "grows from 0 at 30 % of the steps",
    )
    learning_rate: float = Field(default=2e-3, gt=0, le=1, description="peak learning rate of AdamW")
    backbone_rate: float = Field(
        default=1.0, ge=0, le=1, description="factor of the learning rate of pretrained backbones; 0 freezes them"
    )
    warmup: float = Field(default=0.1, ge=0, le=0.9, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(default=0.05, ge=0, le=1, description="not applied to norms, biases and the scale")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the average of weights that is published; 0: the weights"
    )
    text_warmup: int = Field(default=400, ge=0, description="steps of the text tower alone before the images")
    text_warmup_batch: int = Field(
        default=96, ge=8, le=4096, description="texts per step of the warm-up, and a third more in other wordings"
    )
    seed: int = Field(default=0, ge=0, description="decides weights, order, texts and augmentation")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16 for GPUs and recent CPUs")
    # From here on: how a step is computed, not what it computes.
    exchange: Exchange = operational("gather", description="gather: all texts everywhere; ring: part by part")
    micro_batch: int = operational(
        0, ge=0, description="studies in one forward pass; more are embedded in parts, gradients cached; 0: all"
    )
    loss_chunk: int = operational(4096, ge=1, description="texts of one block of the similarity matrix")
    activation_checkpointing: bool = operational(
        default=False, description="recompute activations instead of keeping them"
    )
    compile: bool = operational(default=False, description="compile the towers with torch.compile")
    sharding: Literal["none", "fsdp"] = operational(
        "none", description="fsdp: weights, gradients and moments are divided among processes"
    )
    report_steps: int = operational(0, ge=0, description="steps between reports and checkpoints; 0: every epoch")
    prefetch: int = operational(2, ge=0, le=64, description="batches prepared ahead in the background; 0: none")
    decode_threads: int = operational(1, ge=1, le=256, description="threads of each process that decode images")
    image_cache_mb: int = operational(512, ge=1, description="decoded images kept in memory by each process, in MB")
