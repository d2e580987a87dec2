"""What changes with repetition, with data and with compute."""
