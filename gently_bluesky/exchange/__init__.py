"""What comes from others and goes to others: import of sessions and files, export of runs and selections."""
