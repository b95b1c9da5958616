"""``python -m snapmig``."""

import sys

from snapmig.commands import main

sys.exit(main())
