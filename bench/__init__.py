"""Measures phi3v beside other engines, and checks it against the PyTorch reference."""
