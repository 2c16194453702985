"""The renderer of sample data: images of hands with true annotations, in HaGRID's layout."""
