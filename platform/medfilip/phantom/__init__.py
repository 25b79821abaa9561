"""Synthetic studies with exact truth, for demos, tests and scale."""
