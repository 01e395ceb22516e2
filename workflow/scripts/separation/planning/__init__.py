"""From an experiment to everything its workflow builds; imported while the Snakefile is parsed.

In: an experiment and the configuration. Out: specs, ids and rows for the rules, and the options of jobs.
"""
