"""Many findings as a few integer tensors: what the similarity matrix computes with, on any device.

Legend of tensor names: F or T findings (texts are findings too), S sites of the ontology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medfilip.findings.codes import Codebook


@dataclass(frozen=True)
class FindingTensors:
    """Findings as columns; a missing slot is `medfilip.findings.codes.NONE`.

    Attributes
    ----------
    category_T, certainty_T, severity_T, laterality_T
        int64 positions in the code book.
    sites_TS
        bool, one column per site of the ontology.
    """

    category_T: Tensor
    certainty_T: Tensor
    severity_T: Tensor
    laterality_T: Tensor
    sites_TS: Tensor

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, object]], codebook: Codebook) -> FindingTensors:
        """Build from rows of `medfilip.storage.schemas.FINDING_CODES`."""
        scalars_T4 = torch.tensor([[row[slot] for slot in _SCALARS] for row in rows], dtype=torch.int64).reshape(-1, 4)
        sites_TS = torch.zeros(len(rows), len(codebook.sites), dtype=torch.bool)
        for position, row in enumerate(rows):
            sites = row["sites"]
            assert isinstance(sites, Sequence)
            sites_TS[position, list(sites)] = True
        return cls.unpacked(torch.cat([scalars_T4, sites_TS.to(torch.int64)], dim=1))

    def __len__(self) -> int:
        return len(self.category_T)

    def __getitem__(self, index: slice | Tensor) -> FindingTensors:
        """Select findings by a slice, a mask or positions."""
        return FindingTensors(*(column[index] for column in self.columns()))

    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return all columns in their fixed order."""
        return self.category_T, self.certainty_T, self.severity_T, self.laterality_T, self.sites_TS

    def to(self, device: torch.device | str) -> FindingTensors:
        """Move every column to a device."""
        return FindingTensors(*(column.to(device) for column in self.columns()))

    def packed(self) -> Tensor:
        """Pack into one int64 matrix [T, 4 + S], the form in which findings travel between processes."""
        *scalars, sites_TS = self.columns()
        return torch.cat([torch.stack(scalars, dim=1), sites_TS.to(torch.int64)], dim=1)

    @classmethod
    def unpacked(cls, packed: Tensor) -> FindingTensors:
        """Undo `packed`."""
        category_T, certainty_T, severity_T, laterality_T = packed[:, : len(_SCALARS)].unbind(dim=1)
        return cls(category_T, certainty_T, severity_T, laterality_T, packed[:, len(_SCALARS) :].to(torch.bool))


_SCALARS = ("category", "certainty", "severity", "laterality")
