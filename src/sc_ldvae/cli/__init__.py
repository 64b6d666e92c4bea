"""The command line: what can be refused at once is, then a fit from file to files, in sentences of its own options."""

from __future__ import annotations

from sc_ldvae.cli._main import main

__all__ = ["main"]
