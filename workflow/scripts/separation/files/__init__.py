"""What is on disk, where, and never half of it.

In: paths and values. Out: atomic writes, locks, YAML with line numbers.
"""
