"""The commands behind `make`.

In: command lines. Out: text for the terminal, and files that some commands write.
"""
