"""Masks of the SIIM-ACR challenge: what was drawn is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.masks import read_masks
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.phantom.study import StudyOptions, generate
from medfilip.storage.location import Location


def test_masks_are_those_that_were_drawn(tmp_path: Path) -> None:
    options = StudyOptions(size=64, prevalence=0.7, categories=("pneumothorax",))
    write_layout(tmp_path, "siim_acr", 20, 3, options=options)
    masks = read_masks(Location.parse(tmp_path))
    several = 0
    for study in generate(20, 3, options=options):
        drawn = np.zeros((64, 64), bool)
        for mask in study.images[0].masks.values():
            drawn |= mask
        assert np.array_equal(masks.mask(study.sop_uid), drawn)
        several += len(masks.runs[study.sop_uid]) > 1
    assert several, "no image had masks on both sides"
    with pytest.raises(MedfilipError) as caught:
        masks.mask("1.2.3")
    assert caught.value.code == ErrorCode.NOT_FOUND
