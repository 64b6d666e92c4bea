"""Measurements on real data: run as ``python -m benchmarks.<name>``."""

from __future__ import annotations
