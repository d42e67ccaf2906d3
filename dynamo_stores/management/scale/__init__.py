"""A simulation of what a table carries: used by the command ``dynamo_simulate`` alone."""
