"""What works on model files beside serving them: how a model compares with another one that is to replace it."""
