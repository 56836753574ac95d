"""Reporting: data about finished points, then pictures of them. Nothing here imports torch."""
