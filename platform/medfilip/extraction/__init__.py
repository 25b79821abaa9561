"""Sentence → findings: the lexicon engine, prompts, the reply parser, grounding."""
