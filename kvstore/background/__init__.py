"""From the log to tables, and from tables to fewer: what goes on behind the writers' backs."""
