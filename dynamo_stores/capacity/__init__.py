"""How much capacity a provisioned table has, needs and gets."""
