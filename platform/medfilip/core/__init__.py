"""What everything else stands on: errors, ids, fingerprints, settings and secrets. Imports nothing of ours."""
