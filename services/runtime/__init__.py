"""Runtime: providers, the bundle made of them, and the model door."""
