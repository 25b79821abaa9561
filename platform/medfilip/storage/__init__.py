"""Where data lies: URIs, shards, dataset schemas, manifests and runs."""
