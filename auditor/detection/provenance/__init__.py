"""What a media file says of its own making: signed Content Credentials, and unsigned metadata."""
