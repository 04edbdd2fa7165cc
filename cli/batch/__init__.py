"""`phi3v batch`: command.py (the options), inputs.py, run.py (answering), journal.py and table.py (the results)."""
