"""Audio files and sample rates.

In: audio files. Out: arrays, and the other way round.
"""
