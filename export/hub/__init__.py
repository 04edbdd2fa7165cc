"""Published builds: which there are, and how they come from the Hugging Face hub and go again."""
