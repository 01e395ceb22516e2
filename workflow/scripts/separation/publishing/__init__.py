"""The results table of a sweep for spreadsheets.

In: the tables of a sweep. Out: CSV file, workbook and Google sheet.
"""
