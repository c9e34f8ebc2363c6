"""`python -m conformance IMAGE`."""

import sys

from conformance.cli import main

sys.exit(main())
