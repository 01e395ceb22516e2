"""Which class, split and song a file belongs to.

In: files of a source. Out: files by class and split, and a table of those that are unfit.
"""
