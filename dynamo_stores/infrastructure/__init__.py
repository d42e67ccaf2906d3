"""The AWS resources that the models and the settings require."""
