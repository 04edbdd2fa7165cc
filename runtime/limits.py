"""Limits that the command line states too: loads nothing."""

MAX_BATCH_SIZE = 32
"""The most answers at a time: genai takes no larger batch."""
