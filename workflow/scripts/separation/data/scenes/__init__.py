"""Scenes: the events of mixtures, and their audio.

In: a recipe and organized files. Out: scaper scenes, rendered audio, JAMS.
"""
