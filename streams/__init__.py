"""The plumbing: from a Kafka record to a committed state and a published change, and nothing about what they mean."""
