"""From tables to figures and one HTML report.

In: the tables of a sweep. Out: figures and report.html.
"""
