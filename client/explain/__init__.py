"""Why the model says what it says about one patient; everything stays at the hospital."""
