"""The command line: ``python -m sc_ldvae fit counts.h5ad -o fitted.h5ad``."""

from __future__ import annotations

import sys

from sc_ldvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
