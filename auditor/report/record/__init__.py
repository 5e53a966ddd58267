"""The versioned record of an audit: its types, its wording, and everything derived from it alone."""
