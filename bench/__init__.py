"""What measures phi3v and proves it against the PyTorch reference."""
