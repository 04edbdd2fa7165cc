"""Finished experiments: the measurements behind settings that are the default today."""
