"""The language of experiment files and what they mean.

In: YAML files that users write. Out: the settings of every point, checked, and the ids of their contents.
"""
