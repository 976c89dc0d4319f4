"""The present in memory: layers of recent mutations, the state that readers see, and its past."""
