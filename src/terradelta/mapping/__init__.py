"""The `predict` verb: from options to a prediction folder, its page, plan and picture."""
