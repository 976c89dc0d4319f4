"""Benchmarks of the store, beside its peers where one can compare.

Keys are 16 random bytes, values 100 bytes that do not compress. Every engine works in a process of
its own; it stands still while another one is measured, and rounds go from engine to engine. No
write waits for the disk unless it is said: what is compared is what the engines do, not the disk.
"""
