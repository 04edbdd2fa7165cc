"""`phi3v batch`: its inputs, its journal, its table and the command."""
