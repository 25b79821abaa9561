"""The semantic similarity matrix: how much of text l is true of image i."""
