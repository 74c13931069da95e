"""Whole data sets: `map`, `starmap` and the same for coroutines, in bounded memory."""
