"""Most commands behind `make`; sync, tensorboard and check_environment are in `tracking` and `machine`.

In: command lines. Out: text for the terminal, and files that some commands write.
"""
