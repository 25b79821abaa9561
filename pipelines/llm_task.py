"""What language model engines are asked about: sentences of reports, or the looks of findings.

A task knows its requests, the form of a reply and what a reply becomes; engines (`pipelines.vllm_plan`,
`pipelines.engines`) are the same for all. Tasks travel to workers, so they hold names alone and load where they are
used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from medfilip.extraction.prompt import PROMPT_VERSION, prompt_version
from medfilip.findings.ontology import load_ontology

if TYPE_CHECKING:
    import pyarrow as pa

    from medfilip.extraction.chat_engine import Reader, Template
    from medfilip.extraction.copying import Copying
    from medfilip.extraction.prompt import PromptTemplate
    from medfilip.extraction.reply import ReplyReader
    from medfilip.knowledge.drafts import DraftReader
    from medfilip.storage.schemas import DatasetSchema


class LlmTask(Protocol):
    """What is asked of a model."""

    @property
    def sends(self) -> str:
        """What goes to the model, in words."""
        ...

    @property
    def schema(self) -> DatasetSchema:
        """Dataset that results are kept in."""
        ...

    def for_model(self, model: str, /) -> LlmTask:
        """Return the task as it is put to a model: a model folder may name the prompt it was trained on."""
        ...

    def template(self) -> Template:
        """Return the writer of requests."""
        ...

    def reader(self) -> Reader[Any]:
        """Return the reader of replies."""
        ...

    @property
    def copying(self) -> str:
        """Fingerprint of how the grammar of a request is made from its words; empty if all share one form."""
        ...

    def decoding(self, text: str, /) -> dict[str, str]:
        """Return what vLLM decodes a reply under: a grammar or a JSON schema, as text."""
        ...

    def table(self, ids: pa.ChunkedArray, engine: str, results: list[Any], /) -> pa.Table:
        """Build rows of the dataset from results in the order of ``ids``."""
        ...


@dataclass(frozen=True)
class ExtractionTask:
    """Findings of a sentence, asked for with a prompt version."""

    prompt: str = PROMPT_VERSION
    sends: str = "sentences of reports"

    def for_model(self, model: str, /) -> ExtractionTask:
        """Return the task with the prompt version that a model folder names."""
        return ExtractionTask(prompt_version(model))

    @property
    def schema(self) -> DatasetSchema:
        """Return ``sentence_findings``."""
        from medfilip.storage.schemas import SENTENCE_FINDINGS

        return SENTENCE_FINDINGS

    def template(self) -> PromptTemplate:
        """Return the prompt of extraction."""
        from medfilip.extraction.prompt import load_prompt

        return load_prompt(self.prompt)

    def reader(self) -> Reader[Any]:
        """Return the reader that grounds findings."""
        return reply_reader()

    @property
    def copying(self) -> str:
        """Fingerprint of the grammars of a student, which can only quote.

        A large model spells well and may name what a sentence says in other words; its vocabulary makes a grammar for
        each sentence dear.
        """
        return copying().fingerprint if self.template().copying else ""

    def decoding(self, text: str, /) -> dict[str, str]:
        """Return the grammar of a reply; that of a student holds the sentence's own words."""
        from medfilip.extraction.reply_format import reply_grammar

        return {"grammar": copying().grammar(text) if self.template().copying else reply_grammar()}

    def table(self, ids: pa.ChunkedArray, engine: str, results: list[Any], /) -> pa.Table:
        """Build rows of ``sentence_findings``."""
        from medfilip.extraction.engine import results_table

        return results_table(ids, engine, results)


class KnowledgeTask:
    """Looks of a category or a finding (`medfilip.knowledge.drafting`)."""

    sends = "names and slots of findings"

    def for_model(self, model: str, /) -> KnowledgeTask:
        """Return the same task: its instructions are for general models."""
        del model
        return self

    @property
    def schema(self) -> DatasetSchema:
        """Return ``knowledge_replies``."""
        from medfilip.storage.schemas import KNOWLEDGE_REPLIES

        return KNOWLEDGE_REPLIES

    def template(self) -> Template:
        """Return the instructions."""
        from medfilip.knowledge.drafting import load_instructions

        return load_instructions()

    def reader(self) -> Reader[Any]:
        """Return the reader that checks phrases."""
        return draft_reader()

    @property
    def copying(self) -> str:
        """Return nothing: schemas are in the fingerprint of the instructions."""
        return ""

    def decoding(self, text: str, /) -> dict[str, str]:
        """Return the JSON schema of the reply to a request."""
        return {"json": self.template().reply_form(text)}

    def table(self, ids: pa.ChunkedArray, engine: str, results: list[Any], /) -> pa.Table:
        """Build rows of ``knowledge_replies``."""
        from medfilip.knowledge.drafts import replies_table

        return replies_table(ids, engine, results)


EXTRACTION: LlmTask = ExtractionTask()
KNOWLEDGE: LlmTask = KnowledgeTask()


@lru_cache(maxsize=1)
def reply_reader() -> ReplyReader:
    """Return the reader of models' replies about sentences of this process."""
    from medfilip.extraction.reply import ReplyReader

    return ReplyReader(load_ontology())


@lru_cache(maxsize=1)
def copying() -> Copying:
    """Return the writer of grammars of this process."""
    from medfilip.extraction.copying import Copying

    return Copying(load_ontology())


@lru_cache(maxsize=1)
def draft_reader() -> DraftReader:
    """Return the reader of models' replies about looks of this process."""
    from medfilip.knowledge.drafting import load_instructions
    from medfilip.knowledge.drafts import DraftReader
    from medfilip.knowledge.knowledge import load_knowledge

    return DraftReader(load_instructions(), load_knowledge(), load_ontology())
