"""The zoo: real architectures, each compressed the same way, and the table of what came out."""
