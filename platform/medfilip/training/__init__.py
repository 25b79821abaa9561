"""Batches, step, schedule, resume: plain torch, with or without Ray."""
