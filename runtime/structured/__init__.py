"""Answers in a format: from Python types, fields and JSON schemas to a mask over tokens, and back to values."""
