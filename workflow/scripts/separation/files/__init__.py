"""Files on disk: their names, and safe reading and writing.

In: paths and values. Out: atomic writes, locks, YAML with line numbers.
"""
