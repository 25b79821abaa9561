"""Public data sets as locked evaluation protocols: which images, which labels, which split, and how that is checked."""
