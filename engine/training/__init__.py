"""Fine-tuning of the uploaded program itself, and its evaluation."""
