"""The table of a sweep that people keep.

In: the tables of a sweep. Out: CSV, workbook and Google sheet.
"""
