"""What every other package uses: errors, keyed random numbers, devices, progress, retries and tables."""
