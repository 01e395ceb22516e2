"""Kinds of sources: folders, downloads, scripts, and toy data.

In: the `source` of a recipe. Out: files in a folder.
"""
