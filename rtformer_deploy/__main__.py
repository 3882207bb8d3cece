"""`python -m rtformer_deploy`: the command line, if its script is not on PATH."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
