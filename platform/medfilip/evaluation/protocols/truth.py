"""What the labels of a data set say of the categories of the ontology.

Legend of tensor names: N images, S labels of the data set, K labels of one category, L categories.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medfilip.evaluation.protocols.listing import ABSENT, PRESENT, UNCERTAIN
from medfilip.evaluation.protocols.protocol import Protocol
from medfilip.findings.labels import plain_label
from medfilip.findings.ontology import load_ontology

UNKNOWN = -1
"""A category that does not count for an image."""


def category_states(protocol: Protocol, said_NS: NDArray[np.int8]) -> NDArray[np.int8]:
    """Decide for each image and category: 1 present, 0 absent, -1 unknown; [N, L].

    A category is present if one of its labels is. Else it is unknown if one of them is uncertain, absent if all of them
    are, or a label is present that denies it. What remains is silence, which the protocol interprets. Nothing is
    inferred along the tree of categories, so that numbers stay comparable with published ones, except that with
    ``narrower: unknown`` a category is no negative where a narrower one is present.
    """
    states_NL = np.full((len(said_NS), len(protocol.labels)), UNKNOWN, np.int8)
    for at, (category, labels) in enumerate(protocol.labels.items()):
        said_NK = said_NS[:, [protocol.source_index[plain_label(name)] for name in dict.fromkeys(labels)]]
        denied_N = _denied(protocol, category, said_NS)
        silent = ABSENT if protocol.silence == "absent" else UNKNOWN
        state_N = np.where(denied_N | (said_NK == ABSENT).all(axis=1), ABSENT, silent)
        state_N = np.where((said_NK == UNCERTAIN).any(axis=1), UNKNOWN, state_N)
        states_NL[:, at] = np.where((said_NK == PRESENT).any(axis=1), PRESENT, state_N)
    return _without_narrower(protocol, states_NL) if protocol.narrower == "unknown" else states_NL


def contradictions(protocol: Protocol, said_NS: NDArray[np.int8], states_NL: NDArray[np.int8]) -> int:
    """Count images that are said to show nothing and a category."""
    normal = [protocol.source_index[plain_label(name)] for name, what in protocol.denies.items() if what == "all"]
    return int(((said_NS[:, normal] == PRESENT).any(axis=1) & (states_NL == PRESENT).any(axis=1)).sum())


def _denied(protocol: Protocol, category: str, said_NS: NDArray[np.int8]) -> NDArray[np.bool_]:
    names = [name for name, what in protocol.denies.items() if what == "all" or category in what]
    denied_N: NDArray[np.bool_] = (
        said_NS[:, [protocol.source_index[plain_label(name)] for name in names]] == PRESENT
    ).any(axis=1)
    return denied_N


def _without_narrower(protocol: Protocol, states_NL: NDArray[np.int8]) -> NDArray[np.int8]:
    ontology, found_NL = load_ontology(), states_NL.copy()
    for at, category in enumerate(protocol.categories):
        below = [other for other, name in enumerate(protocol.categories) if name in ontology.descendants(category)]
        narrower_N = (states_NL[:, below] == PRESENT).any(axis=1)
        found_NL[narrower_N & (states_NL[:, at] == ABSENT), at] = UNKNOWN
    return found_NL
