"""Everything that touches `torch._C`: loading, the graph as instructions, running, editing."""
