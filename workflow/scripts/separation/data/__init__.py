"""From sources to mixtures."""
