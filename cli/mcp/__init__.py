"""`phi3v mcp`: the model as tools of agents that speak the Model Context Protocol (extra `mcp`)."""
