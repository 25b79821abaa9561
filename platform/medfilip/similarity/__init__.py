"""The semantic similarity matrix: soft, masked targets of image-text pairs, computed from integer codes."""
