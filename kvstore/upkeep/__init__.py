"""Looking after a store: backups, what makes stores of them again, and verification."""
