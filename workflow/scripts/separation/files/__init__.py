"""Files on disk: names, locks, safe reading and writing; and the keys of scores.parquet.

In: paths and values. Out: atomic writes, locks, YAML with line numbers.
"""
