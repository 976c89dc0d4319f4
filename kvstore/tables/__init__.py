"""Tables: the immutable sorted files of a store, and the manifest that lists them."""
