"""Audio files.

In: arrays. Out: WAV files.
"""
