"""What a mixture consists of, and its audio.

In: a recipe and organized files. Out: scaper scenes, rendered audio, JAMS.
"""
