"""The durable queue: jobs go in once, and come out until they are done."""
