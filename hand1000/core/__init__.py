"""What every other package uses: errors, keyed randomness, devices, progress and tables."""
