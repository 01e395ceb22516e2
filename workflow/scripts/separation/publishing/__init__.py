"""The results table of a sweep, as people archive it.

In: the tables of a sweep. Out: CSV file, workbook and Google sheet.
"""
