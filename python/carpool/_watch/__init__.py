"""What happened: figures, times, notable events, and what they say in plain sentences."""
