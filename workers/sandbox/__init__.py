"""What a runner is contained by: namespaces, Landlock, seccomp, limits, and a guardian."""
