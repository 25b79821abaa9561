"""Findings in the shape that scorers of the Indiana University collection read: one row a finding, one severity slot.

The collection's annotation has one slot for how much: "mild", "moderate", "severe" and "small", "large" alike
(Demner-Fushman et al., JAMIA 2016). Nothing else is changed: extraction follows the text, not annotators' habits.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("report_id", "category", "certainty", "severity", "laterality", "sites")


def predictions(resolved: pa.Table) -> pa.Table:
    """Turn rows of ``resolved_findings`` into predictions (`COLUMNS`); a size fills an empty severity."""
    severity = pc.coalesce(resolved["severity"], resolved["size"])
    return resolved.set_column(resolved.column_names.index("severity"), "severity", severity).select(list(COLUMNS))
