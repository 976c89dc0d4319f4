"""An embedded, ordered key-value store."""
