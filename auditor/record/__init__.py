"""The versioned record of an audit: its types, the words it is told in, and what follows from it alone."""
