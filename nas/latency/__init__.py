"""Latency: a clock, runtimes, targets, tables of operators, and a predictor of whole networks."""
