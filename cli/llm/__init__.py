"""The plugin for Simon Willison's `llm` (extra `llm`): phi3v's models among its own."""
