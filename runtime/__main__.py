"""`python -m phi3v` is the command line, also where no `phi3v` script is on the PATH.

The one file of runtime/ that imports cli/, because Python looks for it in the package itself.
"""

from __future__ import annotations

from .cli.main import main

if __name__ == "__main__":
    main()
