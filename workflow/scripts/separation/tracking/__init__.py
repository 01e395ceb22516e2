"""Trackers, fed from the event logs of points: while training goes on, or afterwards."""
