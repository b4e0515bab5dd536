"""Looking into a stage: how its adapter moved, and whether it followed the data where the data speak."""
