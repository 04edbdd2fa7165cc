"""The built-in model: its pictures, questions, tokenizer, network and training."""
