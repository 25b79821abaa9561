"""The labels of a data set as the truth that every evaluation and fine-tuning asks; its images are its studies."""

from __future__ import annotations

from medfilip.evaluation.protocols.table import ProtocolTable
from medfilip.evaluation.truth import Shown, Truth
from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import PRESENT, UNKNOWN

_LACKS = {
    "fine_grained": "the labels say no side, severity or site",
    "heat_maps": "the protocol reads no boxes",
}
_ONE_LABEL = {"retrieval": "the labels are too few to be told apart by what they state"}


def truth_of(table: ProtocolTable) -> Truth:
    """Return what the labels of a data set say of its images, by image id.

    The labels of an image that has several to choose from are its statements, to be retrieved as those of a report are.
    """
    categories, several = table.protocol.categories, table.protocol.task == "multi_label"
    shown: dict[str, dict[str, Shown]] = {}
    stated: dict[str, list[dict[str, object]]] = {}
    for image_id, states in zip(table.image_ids, table.truth_NL.tolist(), strict=True):
        known = {name: state == PRESENT for name, state in zip(categories, states, strict=True) if state != UNKNOWN}
        shown[image_id] = {name: Shown(present) for name, present in known.items()}
        if several:
            present = [name for name, is_present in known.items() if is_present]
            stated[image_id] = [{"category": name, "certainty": Certainty.PRESENT} for name in present]
    return Truth(load_ontology(), stated, shown, lacks=_LACKS if several else _LACKS | _ONE_LABEL)
