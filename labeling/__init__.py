"""Bundle + catalogue -> embeddings, terms, categories -> Delta tables -> audit -> publish."""
