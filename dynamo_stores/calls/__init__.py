"""How DynamoDB is called: the one door that every table of the project shares."""
