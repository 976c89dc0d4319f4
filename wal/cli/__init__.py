"""The commands of ``python -m wal``. They never write to the log that they look at, nor lock it."""
