"""Tests: flat, one module for each module of the package, and what they share."""
