"""`python -m minisam` is the same as `minisam`."""

import sys

from minisam.cli import main

sys.exit(main())
