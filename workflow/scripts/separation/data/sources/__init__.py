"""Where recordings come from.

In: the `source` of a recipe. Out: files in a folder.
"""
