"""What single choices of the encoder and its training are worth, on validation queries."""
