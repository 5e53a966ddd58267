"""Independently verifiable evidence of an audit: request, answers and conclusions, hashed, chained and signed."""
