"""Measurements behind benchmarks/RESULTS.md; each module runs alone: ``python -m benchmarks.NAME``."""
