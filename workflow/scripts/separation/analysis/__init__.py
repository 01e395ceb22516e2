"""From the scores of a sweep to tables.

In: points.csv and scores. Out: summaries, intervals, comparisons, conditions and costs.
"""
