"""Speed of fine-tuning an uploaded program against a plain eager loop on the same network."""
