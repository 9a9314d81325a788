"""Pixels into pictures: size, window, colour, bytes, several in one. Knows arrays, and not whose they are."""
