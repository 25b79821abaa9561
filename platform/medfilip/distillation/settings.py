"""Settings of a student's training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medfilip.core.settings import Settings, operational
from medfilip.distillation.student import CONTEXT, StudentSettings
from medfilip.extraction.prompt import STUDENT_PROMPT


class DistillSettings(Settings):
    """Settings of ``python -m medfilip.distillation``."""

    student: StudentSettings = Field(StudentSettings(), description="shape of a student made here")
    base: str = Field(
        "",
        description="Hugging Face folder or name to train instead, or medfilip-extractor-mini; its tokenizer and "
        "template stay",
    )
    lora_rank: int = Field(0, ge=0, le=512, description="rank of an adapter on 'base' (needs peft); 0: all weights")
    prompt: str = Field(STUDENT_PROMPT, description="prompt version the student is trained for")
    context: int = Field(
        CONTEXT, ge=64, le=32_768, description="tokens of the longest row; longer ones are refused and counted"
    )
    epochs: int = Field(4, ge=1, description="times each row is seen")
    max_steps: int = Field(0, ge=0, description="steps of the whole run; 0: all epochs")
    batch_tokens: int = Field(65_536, ge=256, description="padded tokens of a batch")
    learning_rate: float = Field(2e-3, gt=0, description="largest learning rate")
    warmup: float = Field(0.03, ge=0, le=0.5, description="share of the steps in which it rises")
    weight_decay: float = Field(0.1, ge=0, description="of matrices; gains and biases have none")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    seed: int = Field(0, ge=0, lt=1 << 31, description="of weights and order")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="format of published weights")
    validation_rows: int = Field(2_000, ge=1, description="rows of the validation loss at most")
    exact_rows: int = Field(200, ge=1, description="validation rows that are replied to")
    report_steps: int = operational(500, ge=1, description="steps between two lines of numbers")
    state_steps: int = operational(1_000, ge=1, description="steps between two saved states")
    threads: int = operational(0, ge=0, description="CPU threads of torch; 0: as torch finds")
    compile: bool = operational(False, description="compile the model with torch.compile")

    @model_validator(mode="after")
    def _check_adapter(self) -> DistillSettings:
        if self.lora_rank and not self.base:
            raise ValueError("lora_rank needs 'base', the model that the adapter is for")
        return self
