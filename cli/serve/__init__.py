"""`phi3v serve`: the APIs of OpenAI and Ollama over one model."""
