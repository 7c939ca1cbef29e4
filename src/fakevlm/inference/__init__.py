"""Ask any model about records."""
