"""Benchmarks beside other engines: ``python -m benches.peers``.

``rows`` holds what is measured, a module for each group of rows; ``engines`` an adapter for each
engine; ``goals`` what kvstore should reach. Every engine does its part of a group in a process of
its own that ends before the next one begins, engine after engine, and all of it is repeated: so
what disturbs the machine for a while disturbs all of them, and none slows another down.
"""
