"""Benchmarks: ``python -m benches``. A module for each; ``goals`` says what they should reach.

The machine is taken to be noisy. A figure is therefore the median of several rounds. Where it is
compared with the disk's own speed (the *floor*), each round measures the floor right before the
cell, and the figure is the median of the rounds' ratios.
"""
