"""What operators say about dims: the notation, and one module per operator family."""
