"""From a call to a request: what its arguments are, what it asks for, and what its caller gets at once."""
