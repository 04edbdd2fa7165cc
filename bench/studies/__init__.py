"""Finished experiments: the measurements behind settings that are defaults today."""
