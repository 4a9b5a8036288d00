"""`python -m bundle`."""

import sys

from bundle.cli.main import main

sys.exit(main())
