"""Phantom studies in the files and folders of public data sets, to try on what will be done with the real ones."""
