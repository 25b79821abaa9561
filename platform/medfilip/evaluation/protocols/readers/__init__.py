"""One reader for each layout of a public data set: from its tables and folders to the rows of a `Listing`."""
