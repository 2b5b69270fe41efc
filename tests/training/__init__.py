"""What tests of the training runtime share: small networks, their groups, and loops."""
