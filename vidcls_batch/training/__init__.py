"""Fine-tuning: a labelled or captioned manifest in, a checkpoint that `vidcls run` can use out."""
