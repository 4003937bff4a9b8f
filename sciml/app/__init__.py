"""What a person touches: specs, the command line, figures and reports."""
