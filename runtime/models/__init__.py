"""Model folders on this machine: what one holds, which there are, and the manifest beside their files."""
