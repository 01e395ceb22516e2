"""Datasets: from sources to mixtures, and the reader of mixtures.

In: dataset recipes and recordings. Out: manifests beside audio and JAMS; items with their sources.
"""
