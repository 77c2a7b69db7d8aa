"""Records, repositories and the artifact store."""
