"""Experiment files: their language, checks and ids.

In: YAML files that users write. Out: checked settings of every point, and the ids of their contents.
"""
