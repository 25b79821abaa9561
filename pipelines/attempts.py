"""Which sentences were in an engine when it died: the journal that finds the one that kills engines.

A batch is written down before the engine is fed and struck out when it is done. If an actor starts again it finds what
its former life left open: those sentences are *suspects*, and from then on each of them runs alone. A suspect that is
alone in the engine when it dies again has killed it twice and is *quarantined*: it gets its code and is not tried again
unless asked for. A driver that is killed from outside says nothing about any sentence, so open entries of another
session are not counted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from medfilip.storage.location import Location


@dataclass
class AttemptJournal:
    """The journal of one engine actor.

    Attributes
    ----------
    folder
        Folder of the whole run's journal.
    session
        Names this start of the driver.
    actor
        Names the actor; the same after it was started again.
    """

    folder: Location
    session: str
    actor: str
    _suspects: set[int] = field(default_factory=set)
    _quarantined: set[int] = field(default_factory=set)

    def recover(self) -> None:
        """Count what the actor's former life left open, and learn what the whole run knows."""
        for entry in self._open.children():
            content = json.loads(entry.read_bytes())
            ids = [int(sentence) for sentence in content["ids"]]
            alone = len(ids) == 1 and content["suspect"]
            self._mark("quarantined" if alone else "suspects", ids)
            entry.delete()
        self.refresh()

    def refresh(self) -> None:
        """Read the marks of all actors of the run."""
        self._suspects, self._quarantined = self._marked("suspects"), self._marked("quarantined")

    def is_suspect(self, sentence_id: int) -> bool:
        """Whether a sentence has to run alone."""
        return sentence_id in self._suspects

    def is_quarantined(self, sentence_id: int) -> bool:
        """Whether a sentence must not be run."""
        return sentence_id in self._quarantined

    def begin(self, ids: Iterable[int], *, suspect: bool = False) -> Location:
        """Write down sentences that are about to be fed to the engine; returns the entry, for `end`."""
        entry = self._open / f"{secrets.token_hex(6)}.json"
        entry.write_bytes(json.dumps({"ids": [int(i) for i in ids], "suspect": suspect}).encode())
        return entry

    def end(self, entry: Location) -> None:
        """Strike an entry out: the engine survived it."""
        entry.delete()

    @property
    def _open(self) -> Location:
        return self.folder / "open" / self.session / self.actor

    def _mark(self, kind: str, ids: list[int]) -> None:
        (self.folder / kind / f"{secrets.token_hex(6)}.json").write_bytes(json.dumps(ids).encode())

    def _marked(self, kind: str) -> set[int]:
        return {int(i) for entry in (self.folder / kind).children() for i in json.loads(entry.read_bytes())}
