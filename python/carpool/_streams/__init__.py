"""Handlers that yield a list per step: what is made of them, who runs them, and what their callers read."""
