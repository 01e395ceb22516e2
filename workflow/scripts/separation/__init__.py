"""Source-separation experiments: the library behind the workflow."""
