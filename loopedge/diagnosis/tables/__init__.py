"""What is found of tables alone: of rows that follow each other, and of labels."""
