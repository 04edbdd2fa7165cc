"""`phi3v bench`: one file per command. What they measure with is bench/, which knows no command line."""
