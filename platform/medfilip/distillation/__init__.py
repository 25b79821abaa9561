"""A small private language model for extraction: sentences with exact findings, a training set, a student."""
