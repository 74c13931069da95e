"""From a batch to its answers: who runs the handler, on what, and what becomes of what it returns or raises."""
