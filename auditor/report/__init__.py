"""The versioned record of an audit and its renderings; every rendering is a function of the record alone."""
