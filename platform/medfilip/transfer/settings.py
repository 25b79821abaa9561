"""What decides a fine-tuning, as one validated object."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from medfilip.core.settings import Settings, operational
from medfilip.training.settings import AugmentSettings

Mode = Literal["probe", "full", "segment"]
Init = Literal["checkpoint", "random", "imagenet"]


class ProbeSettings(Settings):
    """Settings of the linear probe."""

    features: Literal["learned", "pooled", "embedding"] = Field(
        default="learned",
        description="pooled: mean and maximum of the last feature map; embedding: what the tower gives to the joint "
        "space; learned: embedding of a checkpoint, pooled of other towers, whose way to that space nobody trained",
    )
    strengths: tuple[float, ...] = Field(
        default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
        min_length=1,
        description="candidates of C (scikit-learn's inverse regularisation); the validation split chooses",
    )
    iterations: int = Field(default=1000, ge=10, le=100_000, description="most iterations of the solver")

    @field_validator("strengths")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(strength <= 0 for strength in value):
            raise ValueError("every strength must be above 0")
        return tuple(sorted(value))


class TuneSettings(Settings):
    """Settings of full fine-tuning and of segmentation: the same for every initialisation."""

    steps: int = Field(default=400, ge=1, le=1_000_000, description="optimisation steps of every cell")
    global_batch: int = Field(default=16, ge=1, le=65_536, description="images per step over all processes together")
    evaluate_every: int = Field(
        default=50, ge=1, description="steps between looks at the validation split, which chooses the step"
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="peak learning rate of AdamW")
    backbone_rate: float = Field(
        default=1.0, gt=0, le=1, description="factor of the learning rate for a tower that was trained before"
    )
    warmup: float = Field(default=0.1, ge=0, le=0.9, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(default=0.05, ge=0, le=1, description="not applied to norms and biases")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    augment: AugmentSettings = AugmentSettings()
    width: int = Field(
        default=32, ge=8, le=512, multiple_of=8, description="channels of the decoder of masks at its finest level"
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16 for GPUs and recent CPUs")
    image_cache_mb: int = operational(512, ge=1, description="decoded images kept in memory by each process, in MB")

    @model_validator(mode="after")
    def _check(self) -> TuneSettings:
        if self.augment.flip:
            raise ValueError("augment.flip must be 0: a mirrored chest has its heart on the other side")
        return self
