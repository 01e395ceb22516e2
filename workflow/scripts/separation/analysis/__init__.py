"""From the scores of a sweep to its tables.

In: points and scores. Out: summaries with intervals, comparisons, scores by condition, and costs.
"""
