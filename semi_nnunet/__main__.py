"""``python -m semi_nnunet VERB ...``: the same as ``semi_nnunet VERB ...``."""

from __future__ import annotations

import sys

from semi_nnunet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
