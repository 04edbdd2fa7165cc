"""The images that README and the page at `/` of `phi3v serve` ask about; a package, so that they are installed too."""
