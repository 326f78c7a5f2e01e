"""Verdicts of the deployed pipeline, rates and distances."""
