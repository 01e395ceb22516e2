"""From mixtures to training features, in memory or in a cache.

In: items of a dataset split. Out: cached shards and batches of features and targets.
"""
