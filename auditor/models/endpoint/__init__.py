"""A model behind a URL: requests, answers, and the server's handling of request parameters."""
