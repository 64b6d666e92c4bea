"""Measurements on real data: run as ``python -m benchmarks COMMAND``."""

from __future__ import annotations
