"""What everything else stands on: errors, ids, fingerprints, settings and logging. Imports nothing of ours."""
