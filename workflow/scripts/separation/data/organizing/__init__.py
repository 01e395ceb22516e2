"""Classes, splits and songs of a source's files, and checks of the files.

In: files of a source. Out: files by class and split, and a table of problems.
"""
